# Everything that a fresh machine needs is Python 3.11 (or newer) and make:
#
#     make demo       make test       make check       make bench       make help
#
# Each target makes .venv first when it has to, and installs into it what it needs. A stamp inside .venv is a copy of the
# pyproject.toml that was installed: while the two are equal nothing is asked of the network, so all of this works offline
# once it has worked online. Interrupt it at any moment and start it again: a stamp is written last.

SHELL := /bin/sh
VENV := .venv
BENCH_VENV := .venv-bench
COMPAT_VENV := .venv-compat
COMPAT8_VENV := .venv-compat8
ARGS :=

# `make PYTHON=/opt/python3.12/bin/python3 ...` chooses; else the first of these that is new enough (RHEL 9's python3 is 3.9).
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
            && { echo $$p; exit; }; done; echo python3)

# Login scripts of HPC sites set these for another Python than ours.
unexport PYTHONPATH PYTHONHOME
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Two pip processes in one environment destroy each other's work: `make -j check test` must be as safe as `make check test`.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@echo 'clusterd: make TARGET'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16
	@echo 'Variables: PYTHON=python3.12 (the interpreter of a new .venv), ARGS="tests/unit -x" (for test), ARGS="--rounds 5" (for bench)'

.PHONY: demo
demo: $(VENV)/.installed-base ## start a cluster on this machine, compute on it, stop it, leave nothing behind
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" sh examples/demo.sh

.PHONY: test
test: $(VENV)/.installed-test $(COMPAT_VENV)/.installed-compat $(COMPAT8_VENV)/.installed-compat8 ## run all tests
	$(VENV)/bin/python -m pytest $(ARGS)

.PHONY: chaos
chaos: $(VENV)/.installed-test ## 10,000 tasks on 8 engines while controller, engines and daemon are killed every few seconds
	CLUSTERD_CHAOS_TASKS=10000 CLUSTERD_CHAOS_SECONDS=3 $(VENV)/bin/python -m pytest tests/processes/test_chaos.py -s --timeout 1200 $(ARGS)

.PHONY: test-compat
test-compat: $(VENV)/.installed-test $(COMPAT_VENV)/.installed-compat ## run all of ipyparallel's own tests against our controller, with our engines and with ipengine
	$(VENV)/bin/python -m tests.compat.suite $(ARGS)

.PHONY: check
check: $(VENV)/.installed-check ## ruff (rules and format) and mypy in strict mode
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy

.PHONY: bench
bench: $(BENCH_VENV)/.installed-bench ## measure ours beside ipyparallel, ProcessPoolExecutor, loky and Dask: benchmarks/RESULTS.md
	$(BENCH_VENV)/bin/python -m benchmarks $(ARGS)

.PHONY: venv
venv: $(VENV)/.installed-base $(VENV)/.installed-test $(VENV)/.installed-check $(COMPAT_VENV)/.installed-compat $(COMPAT8_VENV)/.installed-compat8 ## make .venv with all that tests and checks need

.PHONY: clean
clean: ## remove what these targets made, the environments too
	rm -rf $(VENV) $(BENCH_VENV) $(COMPAT_VENV) $(COMPAT8_VENV) .venv-mongodb .demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov
	find clusterd clusterctl tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

# A dangling interpreter (Python was upgraded) or a checkout that was moved makes an environment and all its stamps worthless:
# they are made again, whatever their dates say.
usable = $(shell test -x $(1)/bin/python && { test ! -f $(1)/.made-in || test "$$(cat $(1)/.made-in)" = "$(CURDIR)"; } && echo yes)

# $(1): environment. The version is asked of the interpreter itself, in words that Python 2.7 still parses.
define environment
$(1)/bin/python:
	@$$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "clusterd needs Python 3.11 or newer; $$(PYTHON) is: $$$$($$(PYTHON) --version 2>&1)" >&2; \
	  echo 'Install one and name it: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	@$$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'The venv module of $$(PYTHON) is not complete. On Debian and Ubuntu: apt-get install python3-venv' >&2; \
	  echo '(python3.12-venv and the like when you chose another interpreter than python3)' >&2; exit 1; }
	$$(PYTHON) -m venv --clear $(1)
	@printf '%s' "$$(CURDIR)" > $(1)/.made-in
ifneq ($$(call usable,$(1)),yes)
.PHONY: $(1)/bin/python $(1)/.installed-base $(1)/.installed-test $(1)/.installed-check $(1)/.installed-bench $(1)/.installed-compat $(1)/.installed-compat8
endif
endef

# $(1): environment, $(2): stamp, $(3): what pip installs, $(4): the files that say what that means, of which the stamp is a copy.
# pip itself is never upgraded: 3.11 brings one that knows PEP 660.
define install
$(1)/$(2): $(4) | $(1)/bin/python
	@if cat $(4) | cmp -s - $$@; then touch $$@; else \
	  echo "installing $(3) into $(1)"; \
	  $(1)/bin/python -m pip install --quiet $(3) || { \
	    echo "pip could not install $(3): see above. Run the same command again once the cause is gone." >&2; exit 1; }; \
	  cat $(4) > $$@.new && mv $$@.new $$@; fi
endef

# Environments of their own for ipyparallel's tests and for clients of its version 8: their plugins and pins are not for ours.
COMPAT_NEEDS := tests/compat/requirements.txt
COMPAT8_NEEDS := tests/compat/requirements8.txt

$(eval $(call environment,$(VENV)))
$(eval $(call environment,$(BENCH_VENV)))
$(eval $(call environment,$(COMPAT_VENV)))
$(eval $(call environment,$(COMPAT8_VENV)))
$(eval $(call install,$(VENV),.installed-base,--editable '.',pyproject.toml))
$(eval $(call install,$(VENV),.installed-test,--editable '.[test]',pyproject.toml))
$(eval $(call install,$(VENV),.installed-check,--editable '.[check]',pyproject.toml))
$(eval $(call install,$(BENCH_VENV),.installed-bench,--editable '.[bench,mongodb]',pyproject.toml))
$(eval $(call install,$(COMPAT_VENV),.installed-compat,--editable . --requirement $(COMPAT_NEEDS),pyproject.toml $(COMPAT_NEEDS)))
$(eval $(call install,$(COMPAT8_VENV),.installed-compat8,--requirement $(COMPAT8_NEEDS),$(COMPAT8_NEEDS)))
