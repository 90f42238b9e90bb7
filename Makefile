# Everything runs in .venv, which is built from requirements.lock: identical packages on every machine.

PYTHON ?= python3
OUTPUT_DIR ?= runs/demo
EXTRAS_extras ?= test,art,decomon,foolbox,torch,tensorboard,hub
EXTRAS_docs ?= docs

BIN := .venv/bin
ENV := .venv/.installed
# The clone has the same name as the package. In the folder above it, `import wasser_tf` would find the clone (an empty
# namespace package) before setuptools' default editable install. A plain path entry (compat) is found first.
EDITABLE := --config-settings editable_mode=compat

.DEFAULT_GOAL := help
.PHONY: help env demo test test-extras docs dist mutants bench lock clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(ENV)  ## Build .venv with Python 3.11 to 3.13 (to choose the interpreter: make env PYTHON=python3.12)

$(ENV): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1):" \
	    "choose one, for example: make env PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "Installing about 70 packages; this takes minutes and 3 GB of disk"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation $(EDITABLE) -e .
	@touch $@

demo: env  ## Train on the embedded digits without a network (overwrites OUTPUT_DIR=runs/demo)
	$(BIN)/wasser-tf demo --output_dir=$(OUTPUT_DIR)

# Two processes, because most of the time goes into compilation, which uses one core. All tests of a file run in the same
# process (conftest.py), because they share compiled functions and trained models. --no-loadscope-reorder keeps the order
# of the folders, so that the longest tests are not the last.
test: env  ## Lint, type check, run the tests and the docstrings' examples (14 minutes on two cores)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -rs --ignore=tests/extras --numprocesses=2 --dist=loadscope --no-loadscope-reorder --durations=10

# The extras are in an environment of their own, so that .venv contains only what is locked. It finds the packages of .venv
# through a path file.
.venv-%/.installed: $(ENV) pyproject.toml
	$(BIN)/python -m venv .venv-$*
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$(.venv-$*/bin/python -c \
	  'import sysconfig; print(sysconfig.get_path("purelib"))')/of_venv.pth"
	.venv-$*/bin/python -m pip install --disable-pip-version-check --quiet $(EDITABLE) -e '.[$(EXTRAS_$*)]'
	@touch $@

# A server of a third party, which needs older versions of numpy and protobuf than this package, and Python 3.11. Elsewhere
# its tests are skipped.
.venv-pythie/.installed: $(ENV)
	$(BIN)/python -m venv .venv-pythie
	.venv-pythie/bin/python -m pip install --disable-pip-version-check --quiet \
	  'pythie-serving==3.4.3' 'scikit-learn~=1.2.0' 'cloudpickle~=2.1' \
	  && touch $@ || echo 'pythie-serving cannot be installed; its tests are skipped' >&2

test-extras: .venv-extras/.installed .venv-pythie/.installed  ## Test the bridges to other libraries (6 GB)
	.venv-extras/bin/python -m pytest -q -rs tests/extras

docs: .venv-docs/.installed  ## Build the documentation site in build/site and run its tutorials (minutes)
	.venv-docs/bin/python docs/site/build.py

dist: env  ## Build the sdist and the wheel, check them, and run the commands in a fresh environment (5 minutes)
	rm -rf dist build/*.egg-info build/lib
	test -x build/tools/bin/twine || { $(BIN)/python -m venv build/tools && \
	  build/tools/bin/python -m pip install --disable-pip-version-check --quiet build twine; }
	build/tools/bin/python -m build --outdir dist
	build/tools/bin/twine check --strict dist/*
	$(BIN)/python reliability/fresh_install.py dist/*.whl

# Cosmic Ray is not in requirements.lock, because only this target needs it. A smaller sample:
# make mutants MUTANTS='--paths=wasser_tf/attacks --sample=20'
mutants: env  ## Mutate 100 lines of wasser_tf/ and count the mutants that the tests kill (about an hour on one core)
	@$(BIN)/python -c 'import cosmic_ray' 2>/dev/null || { \
	  echo "make mutants needs Cosmic Ray: $(BIN)/python -m pip install -e '.[mutation]'" >&2; exit 1; }
	$(BIN)/python reliability/mutants.py $(MUTANTS)

bench: env  ## Time the attacks (minutes)
	$(BIN)/python benchmarks/run.py

lock:  ## Resolve requirements.lock again (needs uv; all other targets need only pip)
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --extra test --extra serving pyproject.toml -o requirements.lock

clean:  ## Remove .venv, runs/ and the caches
	rm -rf .venv .venv-extras .venv-docs .venv-pythie runs build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
