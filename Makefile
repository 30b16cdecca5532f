# `make` lists the targets. Everything is installed into .venv; nothing else is touched.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
INSTALLED := .venv/installed
AUDITING := .venv/audit/installed
OSV := https://api.osv.dev/v1/query

.PHONY: help setup repro mend verify test lint baseline recipe latency latency-table budget seeds pareto playground weights readme sweep networks peers litert executorch microcontroller remotes audit licences needs-git
.SECONDARY:

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-22s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## make .venv and install the pinned requirements.txt

$(INSTALLED): requirements.txt constraints.txt constraints-cuda.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is too old: Python 3.11 or newer is needed, make PYTHON=... names one"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

repro: setup ## run the pipeline on params.yaml and print the comparison
	@if [ ! -e .git ]; then dvc config --local core.no_scm true; elif grep -qs no_scm .dvc/config.local; then dvc config --local --unset core.no_scm; fi
	@python -m tools.fingerprints
	dvc repro
	@python -m tools.verify.outputs
	@python -m tools.report

mend: ## after `dvc` itself was killed while it wrote one of its own files: bring dvc.lock back, drop a broken rwlock
	@python -m tools.mend

verify: setup ## run the pipeline in a fresh clone: identical to dvc.lock? make's Error 3: other bytes on another CPU, metrics agree
	@python -m tools.verify

test: setup ## run the test suite (make test ARGS="-m slow" runs the slow tests)
	python -m pytest --numprocesses 2 --dist loadgroup $(ARGS)

lint: setup ## ruff and mypy, as CI runs them
	ruff check .
	ruff format --check .
	mypy

baseline: setup needs-git ## make the experiment `original`, in which nothing is compressed, for `dvc metrics diff original`
	@dvc exp remove --quiet original 2>/dev/null || true
	dvc exp run --temp --name original -S swa.start=null -S prune.amount=0 -S bn_update.num_images=0 -S quantize.method=none evaluate
	@echo 'Compare: dvc metrics diff original'

recipe: setup needs-git ## NAME=mnist: run recipes/mnist.yaml as an experiment, store its metrics beside it
	@python -m tools.recipe $(NAME)
	@python -m tools.readme

latency: setup needs-git ## NAME=mnist: measure the latencies of a recipe anew, of the experiment that is in DVC's cache
	@python -m tools.recipe $(NAME) --latency
	@python -m tools.readme

seeds: setup needs-git ## N=5 NAME=mnist: run a recipe by so many seeds, store mean, spread and paired difference
	@python -m tools.recipe $(NAME) --seeds $(or $(N),5)
	@python -m tools.readme

budget: setup needs-git ## MAX_DROP=0.01 OBJECTIVE=bytes: search for the smallest file (or fastest: latency) that loses at most so much on validation
	@python -m tools.budget --max-drop $(or $(MAX_DROP),0.01) --objective $(or $(OBJECTIVE),bytes)

latency-table: setup needs-git ## time every layer of the network in params.yaml by its width, for make budget
	@python -m tools.budget.measure_layers

sweep: setup needs-git .venv/sweep/installed ## FILE=sweeps/amounts.csv: every line as an experiment, on all cores or SCHEDULER=ADDRESS of a dask cluster
	@.venv/sweep/bin/python -m tools.sweep "$(FILE)" $(if $(SCHEDULER),--scheduler $(SCHEDULER)) $(if $(WORKERS),--workers $(WORKERS))

pareto: setup needs-git ## AMOUNTS="0.5 0.7 0.9": an experiment for each prune.amount, and the page with the front of all
	@for amount in $(or $(AMOUNTS),0.5 0.7 0.9); do \
		dvc exp remove --quiet amount-$$amount 2>/dev/null; \
		dvc exp run --temp --name amount-$$amount -S prune.amount=$$amount || exit; \
	done
	@python -m tools.report

playground: setup playground/node_modules/.package-lock.json ## both models side by side in a browser: draw, drop images, camera; PORT=8000
	@python -m tools.playground
	@echo 'http://127.0.0.1:$(or $(PORT),8000) until Ctrl+C'
	@python -m http.server --bind 127.0.0.1 --directory playground/build $(or $(PORT),8000) >/dev/null 2>&1

playground/node_modules/.package-lock.json: playground/package-lock.json # needs npm, and a network once
	npm ci --prefix playground --ignore-scripts --no-audit --no-fund --silent
	@touch $@

networks: setup .venv/timm/installed ## prune 160 networks beside torch-pruning, go on where it stopped (ARGS=--int8 quantizes them, too)
	@.venv/timm/bin/python -m comparisons.networks $(ARGS)

peers: setup ## other tools on the same trained networks, go on where it stopped (ARGS=--latency times their files on a quiet machine)
	@python -m comparisons.peers $(ARGS)

weights: setup needs-git ## NAME=mnist: copy the original that the recipe trained to data/raw/NAME.safetensors
	dvc get . models/original.safetensors --rev recipe-$(NAME) --out data/raw/$(NAME).safetensors --force

readme: setup ## write the generated tables of the READMEs anew
	@python -m tools.readme

litert: .venv/litert/installed ## convert the model to models/optimized.tflite in an environment of its own; check, score and time it
	@.venv/litert/bin/python -m edge.litert

executorch: .venv/executorch/installed ## the same to models/optimized.pte
	@.venv/executorch/bin/python -m edge.executorch

microcontroller: setup ## write models/compact.lwz as integer-only C code to models/microcontroller/; check, score and measure it
	@python -m edge.microcontroller

remotes: setup .venv/remotes/installed ## try DVC remotes: a folder, S3, SSH; writes tests/faults/remotes.csv
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && python -m tests.faults.remotes "$$scratch"

audit: ## look every pinned package up in the OSV database of vulnerabilities; accepted ones: SECURITY.md
	@why=$$($(PYTHON) -c 'import sys, urllib.request as web; web.urlopen(sys.argv[1], b"{\"package\": {\"purl\": \"pkg:pypi/pip\"}}", timeout=20)' $(OSV) 2>&1 | tail -n 1); \
	case "$$why" in \
	*HTTPError* | *CERTIFICATE*) ;; \
	*URLError* | *TimeoutError* | *ConnectionResetError*) echo "audit skipped: no network: $(OSV): $${why#*: }"; exit 0 ;; \
	esac; \
	$(MAKE) --silent $(AUDITING) && .venv/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off \
		--vulnerability-service osv --osv-url $(OSV) --ignore-vuln CVE-2025-69872 \
		--requirement requirements.txt --requirement constraints.txt --requirement constraints-cuda.txt

licences: setup $(AUDITING) ## write licences.csv anew: name, version, licence and home page of every pinned package
	@.venv/audit/bin/pip-licenses --python .venv/bin/python --format csv --with-urls --with-system --order name \
		--packages $$(sed -n 's/==.*//p' requirements.txt constraints.txt) --output-file .licences.csv.tmp >/dev/null
	@sed -e 's/^\("[^"]*","[^"+]*\)+[^"]*"/\1"/' -e '/^"torchao"/s/UNKNOWN/BSD-3-Clause/' .licences.csv.tmp >licences.csv && rm .licences.csv.tmp

.venv/timm/installed: requirements-timm.txt # beside the packages of .venv, which it sees
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/main.pth"
	@touch $@

.venv/%/installed: requirements-%.txt # what does not go with the packages of the others
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

needs-git:
	@[ -e .git ] || { echo "this needs a git clone: DVC experiments are git commits, and this folder has no .git (make repro and make test work without)"; exit 1; }
	@[ "$$(git rev-parse --is-shallow-repository)" = false ] || { echo "this needs the whole history: git fetch --unshallow"; exit 1; }
	@git config user.name >/dev/null && git config user.email >/dev/null || { echo "this needs an identity, because experiments are commits: git config user.name NAME and git config user.email ADDRESS"; exit 1; }
