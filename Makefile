# `make` lists the targets. Everything is installed into .venv; nothing else is touched.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
INSTALLED := .venv/installed

.PHONY: help setup repro test lint baseline recipe weights readme needs-git

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-22s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## make .venv and install the pinned requirements.txt

$(INSTALLED): requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is too old: Python 3.11 or newer is needed, make PYTHON=... names one"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

repro: setup ## run the pipeline on params.yaml and print the comparison
	@if [ ! -e .git ]; then dvc config --local core.no_scm true; elif grep -qs no_scm .dvc/config.local; then dvc config --local --unset core.no_scm; fi
	dvc repro
	@python -m recipes.table

test: setup ## run the test suite (make test ARGS="-m slow" runs the slow tests)
	python -m pytest $(ARGS)

lint: setup ## ruff, as CI runs it
	ruff check .
	ruff format --check .

baseline: setup needs-git ## make the experiment `original`, for `dvc metrics diff original`
	@dvc exp remove --quiet original 2>/dev/null || true
	dvc exp run --temp --name original --set-param report.model=original
	@echo 'Compare: dvc metrics diff original'

recipe: setup needs-git ## NAME=mnist: run recipes/mnist.yaml as an experiment, store its metrics beside it
	@python -m recipes.run $(NAME)
	@python -m recipes.table --readme

weights: setup needs-git ## NAME=mnist: copy the original that the recipe trained to data/raw/NAME.safetensors
	dvc get . models/original.safetensors --rev recipe-$(NAME) --out data/raw/$(NAME).safetensors --force

readme: setup ## write the generated tables of the READMEs anew
	@python -m recipes.table --readme

needs-git:
	@[ -e .git ] || { echo "this needs a git clone: DVC experiments are git commits, and this folder has no .git (make repro and make test work without)"; exit 1; }
	@[ "$$(git rev-parse --is-shallow-repository)" = false ] || { echo "this needs the whole history: git fetch --unshallow"; exit 1; }
	@git config user.name >/dev/null && git config user.email >/dev/null || { echo "this needs an identity, because experiments are commits: git config user.name NAME and git config user.email ADDRESS"; exit 1; }
