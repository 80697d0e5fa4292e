# Each target does everything on a fresh machine: environment in .venv, install, run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test slow lint docs mutants clean

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

# far too long to be a part of `test`
mutants: $(VENV)/.installed
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --editable '.[mutation]'
	$(BIN)/python benchmarks/mutants.py

# uv installs in half a minute what takes pip two
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-results site
