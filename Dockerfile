# Two images from one file: `worker` (streaming, producers, tools; no Paddle) and `train`.
#   docker build --target worker -t mindstream-worker:0.1.0 .
#   docker build --target train -t mindstream-train:0.1.0 .

FROM python:3.11.13-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# A fixed user id, so that volumes keep their owner from image to image. A new named volume gets the owner of the folder
# that it is mounted on: hence /artifacts and /var/lib/mindstream, and /volumes for the images that have no user of
# their own (the service `folders` in docker-compose.yml).
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin mindstream \
    && install -d -o 10001 -g 10001 /artifacts /var/lib/mindstream /volumes/etcd /volumes/minio /volumes/milvus \
    && touch /volumes/etcd/.keep /volumes/minio/.keep /volumes/milvus/.keep \
    && chown -R 10001:10001 /volumes
WORKDIR /app
# The distribution holds no packages: this installs its dependencies, and is repeated only when they change. README.md, its
# description in pyproject.toml, is therefore an empty file here.
COPY pyproject.toml ./
RUN touch README.md && pip install .

FROM base AS train
# Paddle's wheels need OpenMP from the system.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && pip install '.[cpu]'
COPY . .
USER 10001:10001
CMD ["python", "-m", "model.train", "--help"]

FROM base AS worker
COPY . .
USER 10001:10001
CMD ["python", "-m", "streams", "--help"]
