# Two commands on a machine with Python 3.11 or newer, pip and make: `make demo` and `make test`.
# Everything lands in $(VENV); another interpreter is chosen with `make test PYTHON=python3.13`.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
PYTEST_ARGS ?=
# Test programs are small and run for moments: compiling them well would take a third of the suite's time. `make
# test-slow` compiles as users do.
QUICK_COMPILE ?= --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true
# Bits depend on how a program is compiled, so what promises equal ones is tested as users compile it, too.
EQUAL_BITS := tests/engine/test_strict.py tests/models/test_transformer.py -k "strict_logits or by_slot"
DEMO_ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow parity lint format clean

help:
	@echo "make demo       decode a dozen prompts plainly and speculatively, compare them, print the speed"
	@echo "make test       lint, types and the fast tests"
	@echo "make test-slow  the tests that need minutes or a real checkpoint"
	@echo "make parity     compare with Hugging Face transformers on PyTorch"
	@echo "make lint       lint, formatting and types alone"
	@echo "make format     rewrite the sources the way lint wants them"
	@echo "make clean      remove the virtual environment and every cache"

demo: $(VENV)/.installed
	@$(BIN)/jaxspec demo $(DEMO_ARGS)

test: lint
	@XLA_FLAGS="$(XLA_FLAGS) $(QUICK_COMPILE)" $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)
	$(if $(PYTEST_ARGS),,@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile $(EQUAL_BITS))

test-slow: $(VENV)/.installed-test
	@$(BIN)/python -m pytest -q -m slow $(PYTEST_ARGS)

parity: $(VENV)/.installed-parity
	@$(BIN)/python -m pytest -q -m parity $(PYTEST_ARGS)

lint: $(VENV)/.installed-test
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python --warnings

format: $(VENV)/.installed-test
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"jaxspec needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.13")'
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	@echo "installing jaxspec into $(VENV)"
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created pyproject.toml
	@echo "installing jaxspec and its test tools into $(VENV)"
	@$(INSTALL) -e '.[test]'
	@touch $@

$(VENV)/.installed-parity: $(VENV)/.created pyproject.toml
	@echo "installing jaxspec, its test tools and PyTorch into $(VENV)"
	@$(INSTALL) -e '.[test,parity]'
	@touch $@
