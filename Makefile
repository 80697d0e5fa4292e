# Each target does everything on a fresh machine: environment in .venv, install, run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv

# of every dependency something: what the lanes of other versions run
LANE := $(addprefix tests/test_,backbone.py cli.py coco_masks.py evaluation.py figures.py \
    finetune_heads.py folder.py loading.py pascal5i.py pretraining_cli.py report_page.py \
    training_augmentation.py training_run.py weights.py)

.PHONY: demo test slow lint docs lock upgrade audit minimum newest coverage mutants clean

demo: $(VENV)/.installed
	$(BIN)/fss-bench evaluate panet --dataset shapes --fold all --shots 1,5 --episodes 100 \
	    --backbone tf_efficientnet_lite0 --weights packaged --output demo-results

test: lint
	$(BIN)/python -m pytest -n auto

slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow -n auto

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed
	PYTHONPATH=docs $(BIN)/zensical build --strict --clean

# the default tests, counted in every process; ends with results/coverage.csv
coverage: $(VENV)/.installed
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	$(BIN)/coverage json --quiet -o .coverage.json
	$(BIN)/python benchmarks/coverage_table.py .coverage.json results/coverage.csv

# far too long to be a part of `test`
mutants: $(VENV)/.installed
	UV_PROJECT_ENVIRONMENT=$(VENV) $(UV) sync --quiet --locked --inexact --extra dev --extra mutation --no-build-isolation
	$(BIN)/python benchmarks/mutants.py

# what pyproject.toml asks for anew; all other versions stay
lock: $(UV)
	$(UV) lock

# the newest release of everything, uv too
upgrade: $(UV)
	echo uv | $(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
	    --upgrade - --output-file .ci/uv.txt
	$(UV) lock --upgrade

audit: $(UV)
	UV=$(UV) .ci/audit

# the lowest versions that pyproject.toml allows; docs/supply-chain.md tells why two tests are left out
minimum: $(UV)
	PYENV_VERSION=3.11 $(UV) venv --quiet --clear --python 3.11 $(VENV)-minimum
	VIRTUAL_ENV=$(VENV)-minimum $(UV) pip install --quiet --resolution lowest-direct --editable '.[dev]'
	$(VENV)-minimum/bin/python -m pytest -n auto -o filterwarnings=default $(LANE) \
	    --deselect tests/test_evaluation.py::test_split_and_whole_method_give_the_same_counts \
	    --deselect 'tests/test_coco_masks.py::test_a_region_that_fits_no_image_is_refused[segmentation4--5]'

# the newest versions that pyproject.toml allows, whatever the lock says, on the newest Python
newest: $(UV)
	PYENV_VERSION=3.13 $(UV) venv --quiet --clear --python 3.13 $(VENV)-newest
	VIRTUAL_ENV=$(VENV)-newest $(UV) pip install --quiet --upgrade --editable '.[dev]'
	$(VENV)-newest/bin/python -m pytest -n auto $(LANE)

# pip checks the hashes of uv, and uv those of everything in uv.lock
$(UV): .ci/uv.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement .ci/uv.txt
	touch $@

# A stale lock is an error (mend: make lock). What comes without a wheel is built last, not isolated:
# so what builds it is locked too.
$(VENV)/.installed: export UV_PROJECT_ENVIRONMENT = $(VENV)
$(VENV)/.installed: pyproject.toml uv.lock $(UV)
	$(UV) sync --quiet --locked --inexact --extra dev \
	    --no-install-project --no-install-package antlr4-python3-runtime
	$(UV) sync --quiet --locked --inexact --extra dev --no-build-isolation
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-minimum $(VENV)-newest demo-results site
