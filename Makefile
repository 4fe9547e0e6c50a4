# `make demo` and `make test` do all the set-up on a fresh machine. Needs: Python 3.11+, make, git, gpg.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# or every program would compile this package's modules again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check-machine clean

demo: $(VENV)/.installed  ## an embedded BookReader, captured, verified, shown in the Dagster UI
	@$(BIN)/bookreader-backup demo $(ARGS)

test: $(VENV)/.installed-test  ## every test that this machine allows; ARGS are pytest's
	@$(BIN)/python -m pytest -n auto --dist loadgroup $(ARGS)

check-machine:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or newer, or say make PYTHON=…"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, and $(PYTHON) is older: say make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make environments: install python3-venv"; exit 2; }
	@command -v git >/dev/null || { echo "git was not found: install git"; exit 2; }
	@command -v gpg >/dev/null || { echo "gpg was not found: install gnupg (apt-get install gpg, brew install gnupg)"; exit 2; }

$(VENV)/.installed: pyproject.toml constraints.txt | check-machine
	@scripts/install servers && touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | check-machine
	@scripts/install test && touch $@ $(VENV)/.installed

clean:  ## removes the environment and the demo's data, nothing else
	rm -rf $(VENV) .demo
