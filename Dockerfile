# Two images from one file: `worker` (streaming, producers, tools; no Paddle) and `train`.
#   docker build --target worker -t mindstream-worker:0.1.0 .
#   docker build --target train -t mindstream-train:0.1.0 .

# The digest is that of all platforms, as docker-library/repo-info lists it.
ARG PYTHON_IMAGE=python:3.11.16-slim-bookworm@sha256:c425d915a89a6dcd3183b1797ad9bd8878caff5a417f6371c8df93c8ea8b727f

# The checkout with rights of its own: under umask 077 only its owner could read it.
FROM ${PYTHON_IMAGE} AS source
WORKDIR /source
COPY . .
RUN chmod -R u=rwX,go=rX .

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# A fixed user id, so that volumes keep their owner from image to image. A new named volume gets the owner of the folder
# that it is mounted on: hence /artifacts and /var/lib/mindstream, and /volumes/milvus for an image that has no user of
# its own (the service `image` in docker-compose.yml).
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin mindstream \
    && install -d -o 10001 -g 10001 /artifacts /var/lib/mindstream /volumes/milvus \
    && install -o 10001 -g 10001 /dev/null /volumes/milvus/.keep
# The image has no bytecode of the standard library, and containers, whose root is read-only, cannot keep any: each health
# check would compile what it imports, 0.4 s of CPU time instead of 0.07.
RUN python -m compileall -q -x '/(site-packages|tests?)/' /usr/local/lib/python3.11
WORKDIR /app
# Exact versions with checksums, written by `make lock`. Installed before the code is copied, so only when they change.
COPY --from=source /source/requirements-worker.txt ./
RUN pip install --require-hashes --only-binary :all: -r requirements-worker.txt

FROM base AS train
COPY --from=source /source/requirements-train.txt ./
# Paddle's wheels need OpenMP from the system.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && pip install --require-hashes --only-binary :all: -r requirements-train.txt
COPY --from=source /source .
RUN python -m compileall -q .
USER 10001:10001
CMD ["python", "-m", "model.train", "--help"]

FROM base AS worker
COPY --from=source /source .
RUN python -m compileall -q .
USER 10001:10001
CMD ["python", "-m", "streams", "--help"]
