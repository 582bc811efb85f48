# make demo    everything set up, then a synthetic drive -> mAP, demo/drive.mp4, demo/drive.gif
# make test    everything set up, then all tests
# make coverage  all tests, and the lines that none of them ran
# make check   format, lint, types, import contracts, tests: what CI runs
# make docs    write docs/reference/commands.md and config.md from the code
# make lock    resolve pyproject.toml anew into requirements/*.lock
# make images REGISTRY=...            the Ray nodes' images, built and pushed (docs/how-to/cluster.md)
# make sagemaker-images REGISTRY=...  SageMaker's, made of those (docs/how-to/sagemaker.md)

PYTHON ?= python3.11
BIN := .venv/bin
SHELL := /bin/bash

TARGETS := cpu cuda
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
INTO = $(or $(REGISTRY),$(error REGISTRY is not given: where the images go, as in REGISTRY=ACCOUNT.dkr.ecr.REGION.amazonaws.com))

# three processes on two cores: each waits for a Ray, a server or a child at times
# a process that dies ends the run: pytest-xdist 3.8 would start another and wait for it for ever
PYTEST = $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart=0 --durations=10

.PHONY: demo test coverage check lint docs lock images sagemaker-images $(TARGETS:%=image-%) $(TARGETS:%=sagemaker-image-%) clean
.DELETE_ON_ERROR:

demo: .venv/core
	$(BIN)/urbandet demo --out demo

test: .venv/all
	$(PYTEST)

coverage: .venv/all
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

check: lint test

lint: .venv/all
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/all
	$(BIN)/python -m urbandet_ray.cli.reference docs/reference

.venv/made:
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "needs Python 3.11 with venv and pip: install it (Debian: python3.11 and python3.11-venv) or name it with make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/core: .venv/made requirements/core.lock pyproject.toml
	$(BIN)/pip install --quiet --require-hashes -r requirements/core.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

.venv/all: .venv/made requirements/all.lock requirements/odapi.lock pyproject.toml
	$(BIN)/pip install --quiet --require-hashes -r requirements/all.lock
	$(BIN)/pip install --quiet --require-hashes --no-deps -r requirements/odapi.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch .venv/core $@

# uv writes no index address into a lock; its own version is pinned so that a lock is reproducible
lock: .venv/made
	$(BIN)/pip install --quiet uv==0.13.9
	$(BIN)/uv pip compile pyproject.toml --extra train --extra fast --extra convert --extra dev --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements/all.lock
	$(BIN)/uv pip compile pyproject.toml --constraints requirements/all.lock --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements/core.lock
	$(BIN)/uv pip compile requirements/odapi.in --no-deps --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements/odapi.lock
	$(BIN)/uv pip compile cluster/cuda.in --python-version 3.11 --python-platform linux \
	  --generate-hashes --no-emit-index-url --no-header --quiet --output-file cluster/cuda.lock

images: $(TARGETS:%=image-%)

$(TARGETS:%=image-%): image-%:
	docker build --platform linux/amd64 --file cluster/Dockerfile --target $* --tag $(INTO)/urbandet-ray:$(VERSION)-$* .
	docker push $(INTO)/urbandet-ray:$(VERSION)-$*

sagemaker-images: $(TARGETS:%=sagemaker-image-%)

$(TARGETS:%=sagemaker-image-%): sagemaker-image-%:
	docker build --platform linux/amd64 --build-arg IMAGE=$(INTO)/urbandet-ray:$(VERSION)-$* \
	  --tag $(INTO)/urbandet-sagemaker:$(VERSION)-$* - < cluster/sagemaker.Dockerfile
	docker push $(INTO)/urbandet-sagemaker:$(VERSION)-$*

clean:
	rm -rf .venv demo .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
