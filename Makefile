# Every target creates its environment inside this checkout (.venv and .mindstream); nothing else is changed.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PADDLE ?= cpu
# Exact versions for the Python and the platform of the images; the checksums are those of all platforms.
UV := $(VENV)/bin/uv pip compile --quiet --upgrade --python-version 3.11 --python-platform linux --only-binary :all: \
	--generate-hashes --no-annotate --custom-compile-command 'make lock' pyproject.toml
# Tests mostly wait for servers: three files at once, each process with servers of its own.
PYTEST := $(PY) -m pytest -n 3 --dist loadfile
# Matplotlib's cache of fonts, which it would keep in the home folder.
export MPLCONFIGDIR := $(CURDIR)/.mindstream/cache/matplotlib

.DEFAULT_GOAL := help
.PHONY: help demo page test test-fast chaos check bench quality lock clean purge

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo "  demo and page take DATA=path/to/clicks (AmazonBook train format), page also TITLES=path/to/titles; test, test-fast and bench take ARGS='…' for pytest and benchmarks."
	@echo "  While .venv does not exist (make clean): PYTHON=python3.12 picks the interpreter, PADDLE=gpu PaddlePaddle's build for GPUs (up to Python 3.12)."

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else "Mindstream needs Python 3.10 to 3.13, this is %d.%d: make PYTHON=python3.12" % v)'
	@$(PYTHON) -c 'import sys; sys.exit("PaddlePaddle for GPUs has no build for Python 3.13: make PADDLE=gpu PYTHON=python3.12" if "$(PADDLE)" == "gpu" and sys.version_info >= (3, 13) else None)'
	@echo "Installing into $(VENV) (once, some minutes) …"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[$(PADDLE),embedded,service,dev]'
	@touch $@

demo: $(STAMP) ## run the whole path on real, embedded servers and print a summary
	@$(PY) -m embedded demo $(if $(DATA),--data '$(DATA)')

page: $(STAMP) ## start everything and show the recall service's page until Ctrl-C
	@$(PY) -m embedded page $(if $(DATA),--data '$(DATA)') $(if $(TITLES),--titles '$(TITLES)')

test: $(STAMP) ## run all tests, on the embedded servers (about 20 minutes on two cores)
	@$(PYTEST) $(ARGS)

test-fast: $(STAMP) ## run the tests that need no server
	@$(PYTEST) -m 'not integration' $(ARGS)

chaos: $(STAMP) ## kill, cut off and pause workers, broker and Milvus, and audit (ROUNDS=1; JOBS=1; SEED=…)
	@$(PY) -m tests.chaos --rounds $(or $(ROUNDS),1) --jobs $(or $(JOBS),1) $(if $(SEED),--seed $(SEED))

check: $(STAMP) ## lint and type-check
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

bench: $(STAMP) ## measure, on the embedded servers
	@$(PY) -m benchmarks $(ARGS)

quality: $(STAMP) ## train and measure default, one vector and published MIND on real splits (MINDSTREAM_DATA; SEEDS=3)
	@$(PY) -m benchmarks.quality --seeds $(or $(SEEDS),1)

lock: $(STAMP) ## choose the newest versions that pyproject.toml allows for the images, and write requirements-*.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[lock]'
	@$(UV) --output-file requirements-worker.txt --extra service
	@$(UV) --output-file requirements-train.txt --extra cpu --constraint requirements-worker.txt \
		$$(sed -n 's/^\([^#= ]*\)==.*/--no-emit-package \1/p' requirements-worker.txt)

clean: ## stop the embedded servers, remove environment, downloads and caches; models and the servers' data are kept
	@if [ -x $(PY) ]; then $(PY) -m embedded down || true; fi
	rm -rf $(VENV) mindstream.egg-info .mindstream/cache .mypy_cache .ruff_cache .pytest_cache .hypothesis

purge: clean ## clean, and delete models and runs (artifacts/, runs/) and the servers' data (.mindstream/)
	rm -rf .mindstream artifacts runs
