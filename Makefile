PYTHON ?= python3
BIN := .venv/bin
# Without bytecode of what is never imported, which is most of it. What is imported must keep its own, whatever the
# environment says: without it each of many processes compiles the sources of PyTorch again, for seven seconds.
PIP := -m pip install --quiet --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE
RUN := $(BIN)/.ready
DEV := $(BIN)/.ready-dev

.PHONY: quickstart check test lint test-avx2 test-more docs serve-docs package format clean

quickstart: $(RUN)
	$(BIN)/shortback train quickstart --out runs/quickstart --overwrite

# Processes with a thread each take half of the time of one with two: most of it is Python and the compiler. Of three
# one often waits, for a process that is to be killed or to hang.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

check: lint
	$(PYTEST) -m 'not slow'

test: lint
	$(PYTEST)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# What trains, and what compiles, on the instructions of a processor with AVX2 alone, where oneDNN computes by other
# kernels. Tests that call `torch.compile` by themselves would take what it made for AVX-512 out of its cache: another folder.
test-avx2: $(DEV)
	TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/.venv/inductor-avx2 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) -m 'not processes' \
	    tests/models tests/ops/test_compiled.py tests/ops/test_packing.py tests/runs/test_train.py \
	    tests/training/test_engine.py tests/training/test_fit.py

# sinabs needs an older nir than Norse does, and with Lightning every import of Fabric takes seconds: an environment of
# their own, on top of .venv.
test-more: $(DEV)
	$(BIN)/python -m venv .venv-more
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	    > $$(echo .venv-more/lib/python*/site-packages)/under.pth
	.venv-more/bin/python $(PIP) sinabs==3.1.3 'lightning>=2.5'
	OMP_NUM_THREADS=1 .venv-more/bin/python -m pytest --numprocesses 2 tests/networks tests/test_examples.py -k 'sinabs or lightning'

# The site, into site/: a dead link, a missing reference or a cell that fails ends it. `serve-docs` shows it while you write.
docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

serve-docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

# Wheel and sdist, and the wheel by itself: installed in a bare environment and used outside the checkout.
package: $(DEV)
	rm -rf dist .venv-package
	$(BIN)/python -m hatchling build
	$(PYTHON) -m venv .venv-package
	.venv-package/bin/python $(PIP) -c constraints.txt dist/*.whl
	cd "$$(mktemp -d)" && $(CURDIR)/.venv-package/bin/python $(CURDIR)/scripts/check_package.py

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-more .venv-package .cache dist runs site

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(RUN): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(PIP) -c constraints.txt -e .
	touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(PIP) -c constraints.txt -e '.[dev]'
	touch $(RUN) $@
