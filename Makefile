# `make demo` and `make test` need a Python 3.11 or newer and make, nothing else. All that they install lands in
# .venv (the project) and .tools (uv, ruff) beside this file; the system's Python is only asked for an environment.

PYTHON ?= python3
ARGS ?=

SHELL := /bin/sh
UV := $(if $(shell uv --version 2>/dev/null),uv,.tools/bin/uv)
RUFF_PIN := $(shell sed -n 's/.*"\(ruff==[0-9.]*\)".*/\1/p' pyproject.toml)

# A stamp is written last, so an interrupted set-up leaves none. It names the folder, since an editable install does:
# a copied or moved checkout sets itself up again.
HERE := $(shell pwd | cksum | cut -d ' ' -f 1)
UV_STAMP := $(if $(filter uv,$(UV)),,.tools/.stamp-uv-$(HERE))
VENV_STAMP := .venv/.stamp-python-$(HERE)
DEMO_STAMP := .venv/.stamp-demo-$(HERE)
TEST_STAMP := .venv/.stamp-test-$(HERE)
RUFF_STAMP := .tools/.stamp-$(RUFF_PIN)-$(HERE)

# uv takes a package that it was killed over for an installed one: a set-up whose make is gone is begun afresh.
UNFINISHED := $(shell pid=$$(cat .venv/.installing 2>/dev/null) && ! kill -0 "$$pid" 2>/dev/null && echo yes)

.PHONY: help demo test quality fixup restart
.NOTPARALLEL:

help:  ## list the targets
	@echo "usage: make TARGET [ARGS='...'] [PYTHON=python3.12]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F '|' '{ printf "  %-9s %s\n", $$1, $$2 }'

demo: $(DEMO_STAMP)  ## set up, then run the main job on the embedded data
	@echo "demo: $(strip examples/demo.py $(ARGS))"
	@.venv/bin/python examples/demo.py $(ARGS)

test: $(TEST_STAMP)  ## set up, then run the test suite (ARGS="tests/models -k infonce" for a part of it)
	@echo "test: $(strip pytest $(ARGS))"
	@.venv/bin/python -m pytest $(ARGS)

quality: $(RUFF_STAMP)  ## check format and lint, changing nothing
	@echo "quality: ruff format --check, ruff check"
	@.tools/ruff/bin/ruff format --check . || failed=1; \
	    .tools/ruff/bin/ruff check . && exit $${failed:-0}

fixup: $(RUFF_STAMP)  ## mend format, and lint where ruff can
	@echo "fixup: ruff check --fix, ruff format"
	@.tools/ruff/bin/ruff check --fix . || failed=1; \
	    .tools/ruff/bin/ruff format . && exit $${failed:-0}

$(DEMO_STAMP): EXTRA := demo
$(TEST_STAMP): EXTRA := test
$(DEMO_STAMP) $(TEST_STAMP): pyproject.toml $(VENV_STAMP)
	@echo "set-up: hf-infomax[$(EXTRA)] into .venv (torch is large: the first time may take minutes)"
	@echo $$PPID > .venv/.installing
	@$(UV) pip install --quiet --python .venv/bin/python --editable '.[$(EXTRA)]'
	@rm -f .venv/.installing
	@touch $@

# 3.11 where there is one, else $(PYTHON). A .venv that works is kept.
$(VENV_STAMP): $(UV_STAMP) $(if $(UNFINISHED),restart)
	@echo "set-up: a private environment in .venv"
	@.venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    rm -rf .venv; \
	    $(UV) venv --quiet --no-python-downloads --python 3.11 .venv 2>/dev/null || { \
	        $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	            echo "error: hf-infomax needs Python 3.11 or newer; '$(PYTHON)' is" \
	                "$$($(PYTHON) --version 2>/dev/null || echo missing). Name another: make PYTHON=/path/to/python3.11 ..."; \
	            exit 1; \
	        } >&2; \
	        $(UV) venv --quiet --no-python-downloads --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv; \
	    }; \
	}
	@touch $@

restart:
	@echo "set-up: the last one was interrupted, starting again"
	@rm -rf .venv

.tools/.stamp-uv-$(HERE):
	@echo "set-up: uv into .tools"
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "error: '$(PYTHON)' is missing or lacks the venv module (on Debian and Ubuntu: apt install python3-venv)." \
	        "Name another: make PYTHON=/path/to/python3.11 ..., or install uv."; \
	    exit 1; \
	} >&2
	@$(PYTHON) -m venv --clear .tools
	@.tools/bin/python -m pip install --quiet --quiet uv
	@touch $@

$(RUFF_STAMP): $(UV_STAMP)
	@echo "set-up: $(RUFF_PIN) into .tools"
	@rm -rf .tools/ruff
	@$(UV) venv --quiet --no-python-downloads .tools/ruff
	@$(UV) pip install --quiet --python .tools/ruff/bin/python '$(RUFF_PIN)'
	@touch $@
