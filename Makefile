# make demo | make test | make check | make docs: each makes .venv first, with the tested versions.
# make lowest: the tests with the lowest versions that are allowed, in .venv-lowest.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN = .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lowest check format bench nightly docs notebooks clean

.venv/.user: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet -c constraints.txt -e '.[torch]'
	touch $@

.venv/.dev: .venv/.user
	$(PIP) install --quiet -c constraints.txt -e '.[torch,jax,test,check]'
	touch $@

.venv/.nightly: .venv/.dev
	$(PIP) install --quiet -c constraints.txt -e '.[torch,ray,docs]'
	touch $@

.venv/.docs: .venv/.user
	$(PIP) install --quiet -c constraints.txt -e '.[torch,docs]'
	touch $@

demo: .venv/.user
	$(BIN)/relucate compare

test: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not nightly"

.venv-lowest/.dev: pyproject.toml lowest.txt
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet -c lowest.txt -e '.[torch,jax,test]'
	touch $@

# Old versions warn of what newer ones of others deprecate; PyTorch 2.10 of its own buffers.
lowest: export PYTEST_ADDOPTS = -W ignore::DeprecationWarning -W 'ignore:The given buffer is not'
lowest: .venv-lowest/.dev
	.venv-lowest/bin/python -m pytest -n 2 --dist loadfile -m "not nightly"

nightly: .venv/.nightly
	$(BIN)/python -m pytest -m nightly

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.dev
	$(BIN)/python benchmarks/throughput.py

docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Open site/index.html"

notebooks: .venv/.docs
	$(BIN)/python examples/execute.py

clean:
	rm -rf .venv .venv-lowest relucate-out dist site
