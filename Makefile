PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/.ready
DEV := $(BIN)/.ready-dev

.PHONY: quickstart test test-sinabs format clean

quickstart: $(RUN)
	$(BIN)/shortback train quickstart --out runs/quickstart --overwrite

test: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pytest

# sinabs needs an older nir than Norse does: an environment of its own, on top of .venv.
test-sinabs: $(DEV)
	$(BIN)/python -m venv .venv-sinabs
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	    > $$(echo .venv-sinabs/lib/python*/site-packages)/under.pth
	.venv-sinabs/bin/python -m pip install --quiet --disable-pip-version-check sinabs==3.1.3
	.venv-sinabs/bin/python -m pytest tests/networks tests/test_readme.py -k sinabs

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-sinabs runs

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(RUN): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(DEV): $(RUN)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
