# Everything runs in .venv, built from requirements.lock: the same packages, byte for byte, on every machine.

PYTHON ?= python3
OUTPUT_DIR ?= runs/demo

BIN := .venv/bin
ENV := .venv/.installed
# A clone has the package's name: from the folder above it, `import wasser_tf` would find the clone, an empty namespace,
# before what setuptools installs by default. A plain path is found first.
EDITABLE := --config-settings editable_mode=compat

.DEFAULT_GOAL := help
.PHONY: help env demo test mutants bench lock clean

help:  ## What can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(ENV)  ## Build .venv (Python 3.11 to 3.13; another one than python3: make env PYTHON=python3.12)

$(ENV): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1):" \
	    "name one, as in: make env PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "Installing some 70 packages, which takes minutes and 3 GB of disk"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation $(EDITABLE) -e .
	@touch $@

demo: env  ## Train on the embedded digits, no network needed (to OUTPUT_DIR=runs/demo, which is overwritten)
	$(BIN)/python bin/train.py --dataset=digits --output_dir=$(OUTPUT_DIR) --overwrite

# Two at a time: most of the time goes into compiling, on one core. A file stays on one (tests/conftest.py), for its tests
# share what they compile and what they train; in the order of the folders, so that the longest are not the last.
test: env  ## Lint, type check and test (about 13 minutes on two cores)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -rs --numprocesses=2 --dist=loadscope --no-loadscope-reorder --durations=10

# Cosmic Ray is not in requirements.lock: only this needs it. MUTANTS='--paths=wasser_tf/attacks --sample=20' for fewer.
mutants: env  ## Mutate 100 lines of wasser_tf/ and count those that tests notice (about an hour on one core)
	@$(BIN)/python -c 'import cosmic_ray' 2>/dev/null || { \
	  echo "make mutants needs Cosmic Ray: $(BIN)/python -m pip install -e '.[mutation]'" >&2; exit 1; }
	$(BIN)/python reliability/mutants.py $(MUTANTS)

bench: env  ## Time the attacks (minutes)
	$(BIN)/python benchmarks/run.py

lock:  ## Resolve requirements.lock anew (needs uv; everything else does with pip)
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --extra test --extra serving pyproject.toml -o requirements.lock

clean:  ## Remove .venv, runs/ and the caches
	rm -rf .venv runs build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
