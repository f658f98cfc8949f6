# Every target sets up what it needs; `make help` lists them.
# PYTHON=python3.12 chooses an interpreter, ARGS="-k links" is passed on to pytest; ARGS="-n 0 -s" shows what the
# tests print, which needs one process. `make bench` passes ARGS on to bench/run.py: ARGS="--only docker --peer".

.DEFAULT_GOAL := help
.PHONY: help setup engine demo test test-slow test-all test-again check format docs bench clean

# The caller's environment must not reach into ours.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV CONDA_PREFIX __PYVENV_LAUNCHER__

# A name on PATH may be a shim that does not run (pyenv), so each is tried.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))
PYTHON := $(shell for p in python3.13 python3.12 python3.11 python3.10 python3; do \
	"$$p" -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo "$$p" && break; done)
PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
IN_ENV := PATH="$(CURDIR)/.venv/bin:$(CURDIR)/.engine/bin:$$PATH"
# The tests mostly wait for processes; what a file's tests share is made once.
PYTEST := $(PY) -m pytest -n 4 --dist loadfile
# One stamp for each interpreter: another PYTHON makes another environment.
READY := .venv/ready-$(subst /,_,$(PYTHON))

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: $(READY)  ## make .venv with the package, its extras and the tools

# The link: Pulumi's language host looks there for pulumi-plugin.json, without which it asks the network for a
# plugin at every run; an editable install alone leaves nothing there.
# The package is compiled as pip compiles what it installs: with PYTHONDONTWRITEBYTECODE, no later process would
# keep what it has compiled.
$(READY): setup.py pyproject.toml tests/requirements.txt
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null || { echo "pulumi-tutum needs Python 3.10 or newer: install it, or name one with PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) comes without its venv module: install it (Debian, Ubuntu: apt-get install python3-venv)." >&2; exit 1; }
	@echo "setup: .venv with $(PYTHON)"
	@[ -e "$@" ] || "$(PYTHON)" -m venv --clear .venv
	@$(PIP) -r tests/requirements.txt
	@$(PIP) --no-build-isolation -e '.[docker]'
	@ln -sfn "$(CURDIR)/pulumi_tutum" "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@$(PY) -m compileall -q pulumi_tutum
	@touch "$@"

engine: $(READY)  ## leave a Pulumi engine in .engine/bin
	@$(PY) engine/install.py

demo: setup engine  ## set up, then preview, deploy and destroy the example
	@$(IN_ENV) $(PY) examples/demo.py

test: setup engine  ## all tests but the slow ones
	$(IN_ENV) $(PYTEST) -m "not slow" $(ARGS)

test-slow: setup engine  ## only the slow tests
	$(IN_ENV) $(PYTEST) -m slow $(ARGS) || [ $$? -eq 5 ]  # 5: there are none

test-all: setup engine  ## all tests
	$(IN_ENV) $(PYTEST) $(ARGS)

test-again: setup engine  ## the tests that failed last, one after the other
	$(IN_ENV) $(PYTEST) -n 0 --last-failed --last-failed-no-failures none $(ARGS)

check: setup  ## format, lint, types, docs, import rules
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	@for program in examples/*/__main__.py; do $(PY) -m mypy "$$program" || exit 1; done
	$(PY) docs/generate.py --check
	$(PY) -m pytest -q tests/unit/test_architecture.py

format: setup  ## put the source into the form that `check` wants
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: setup  ## renew the generated parts of the docs
	$(PY) docs/generate.py

bench: setup engine  ## measure, and print the table of ratios
	$(IN_ENV) $(PY) bench/run.py $(ARGS)

clean:  ## remove what the other targets made (the engine's cache stays)
	rm -rf .venv .engine build dist *.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
