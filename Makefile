# Everything below works on a machine that has only make and Python 3.11, 3.12 or 3.13.
# PYTHON=... chooses another interpreter.

.DEFAULT_GOAL := help
.PHONY: help up down test prove check bench requirements k8s images compose-up compose-down compose-test fmt clean
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo "$$python"; break; }; done)
BIN := .venv/bin
INSTALL = test -n "$(PYTHON)" || { \
	echo "mlcp: Python 3.11, 3.12 or 3.13 is needed and none is on PATH: install one, or name it: make PYTHON=..." >&2; \
	exit 1; }; $(PYTHON) control_plane/embedded/install.py
PYTEST = $(BIN)/python -m pytest -p tests.support.no_skips

CLIENTS = . infra/compose/clients.sh
export PROFILES
unexport PYTHONDONTWRITEBYTECODE # hundreds of processes are started, and each would compile our code again
IMAGES ?= control-plane worker router model-server model-server-foreign model-host trainer mlflow
TAG ?= 0.1.0
COMMA := ,

help: ## Show this help
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

up: .venv/.installed ## Install, start everything, train and serve the first models (ARGS=--detach returns when ready)
	@$(BIN)/mlcp up $(ARGS)

down: ## Stop everything and keep the data
	@if [ -x $(BIN)/mlcp ]; then $(BIN)/mlcp down; else echo "Nothing is installed, so nothing runs."; fi

test: .venv/.installed-dev ## All tests but the slow ones, real services included; a skipped test is a failure
	$(PYTEST) -n 4 --no-loadscope-reorder --durations 20 $(ARGS)

prove: .venv/.installed-dev ## The slow tests: long simulations, real data, soak, kill matrix
	$(PYTEST) -m slow --timeout 3600 $(ARGS)

check: .venv/.installed-dev ## Lint, format, types, import rules, generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy control_plane model_servers training infra
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m model_servers.generator --check
	$(BIN)/python -m infra.monitoring --check

bench: .venv/.installed-dev ## Every benchmark: JSON, a Markdown table, plots
	@for script in benchmarks/*/run.py; do echo "== $$script"; $(BIN)/python "$$script" $(ARGS) || exit 1; done

requirements: .venv/.installed-dev ## Resolve the pinned, hashed requirement files anew from pyproject.toml (UPGRADE=--upgrade)
	$(BIN)/python control_plane/embedded/requirements.py $(UPGRADE)

k8s: ## Render infra/k8s anew with kubectl, after a change of a model.yaml or a manifest
	kubectl kustomize infra/k8s/overlays/dev > infra/k8s/mlops-platform.yaml
	@for overlay in prod monitoring gateway; do \
		kubectl kustomize infra/k8s/overlays/$$overlay > infra/k8s/rendered/$$overlay.yaml || exit 1; done

images: ## Build every image (BASE_IMAGE=..., DOCKER=client; CA=file and PIP_CONF=file are build secrets)
	@$(CLIENTS); for target in $(IMAGES); do DOCKER_BUILDKIT=1 $$DOCKER build --file infra/images/Dockerfile --target $$target \
		$(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) $(if $(CA),--secret id=ca$(COMMA)src=$(CA)) \
		$(if $(PIP_CONF),--secret id=pip$(COMMA)src=$(PIP_CONF)) $(ARGS) \
		--build-arg REVISION=$$(git rev-parse --short HEAD 2>/dev/null || echo unknown) --tag mlcp-$$target:$(TAG) . || exit 1; done

compose-up: ## The whole stack on this Docker host, then the first models and a sample call (PROFILES=core,monitoring)
	@infra/compose/up.sh

compose-down: ## Stop what compose-up started and keep the data
	@$(CLIENTS); COMPOSE_PROFILES=core,monitoring,tools $$COMPOSE down

compose-test: .venv/.installed-dev ## Build the images on BASE_IMAGE and prove them: a stack of them that serves, promotes, rolls back
	@$(CLIENTS); $$DOCKER info > /dev/null || { echo "mlcp: no Docker answers" >&2; exit 1; }
	$(CLIENTS); MLCP_TEST_BASE_IMAGE=$(or $(BASE_IMAGE),python:3.12-slim-bookworm) $(PYTEST) -m docker --timeout 3600 tests/integration/test_images.py tests/e2e/test_compose.py $(ARGS)

fmt: .venv/.installed-dev ## Format, and fix what can be fixed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## Remove the environment and caches; the data in var/ stays
	rm -rf .venv .venv-boot .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -not -path './var/*' -prune -exec rm -rf {} +

.venv/.installed: requirements.txt pyproject.toml control_plane/embedded/install.py
	@$(INSTALL)
	@touch $@

.venv/.installed-dev: requirements-dev.txt requirements.txt pyproject.toml control_plane/embedded/install.py
	@$(INSTALL) --dev
	@touch .venv/.installed $@
