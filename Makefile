# Every target sets up what it needs. `make demo` is the place to start; `make check test` is all that the automation asks.

PYTHON_DIRS := libs services agent cli suite tests bench tools deploy
MEMBERS := protos/gen libs/kit libs/journal services/keys services/launcher services/executor services/agent_gateway agent cli suite
PYPROJECTS := $(MEMBERS:%=%/pyproject.toml)
# Those that are processes of their own: `make images` builds an image of each.
IMAGES := keys agent-gateway executor launcher agent
READY := .venv/.ready
# More than there are cores, because tests wait for processes most of the time. The longest come first.
TEST_PROCESSES := 4

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo up test check protos baseline lock bench images clean
.PHONY: check-format check-lint check-types check-imports check-protos check-stubs check-locks

help:
	@echo 'make demo      launch servers and run scripts on them, end to end, on this machine'
	@echo 'make up        start the suite and keep it running'
	@echo 'make test      every test'
	@echo 'make check     format, lint, types, import rules, protos, stubs, locks'
	@echo 'make protos    write the stubs in protos/gen from protos/twinline'
	@echo 'make baseline  renew what `buf breaking` compares with; only with a release'
	@echo 'make lock      renew requirements.lock (UPGRADE=1 for the newest versions)'
	@echo 'make bench     the measurements, next to the bare transport'
	@echo 'make images    an image of each service and of the agent (ENGINE=docker|podman|buildah, BASE=IMAGE)'
	@echo 'make setup     only the virtual environment, in .venv'
	@echo 'make clean     remove the virtual environment and every cache'

setup: $(READY)

$(READY): requirements.lock pyproject.toml $(PYPROJECTS) tools/setup.sh
	@tools/setup.sh $(MEMBERS)
	@touch $@

demo: $(READY)
	@tools/programs.sh sshd ps
	@.venv/bin/twinline demo

up: $(READY)
	@tools/programs.sh sshd ps
	@.venv/bin/twinline up

test: $(READY)
	@tools/programs.sh sshd ps busybox
	.venv/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

# Each is one target, so that `make -k check` tells everything at once.
check: check-format check-lint check-types check-imports check-protos check-stubs check-locks

check-format: $(READY)
	.venv/bin/ruff format --check $(PYTHON_DIRS)

check-lint: $(READY)
	.venv/bin/ruff check $(PYTHON_DIRS)

check-types: $(READY)
	.venv/bin/mypy

check-imports: $(READY)
	.venv/bin/lint-imports --no-cache

check-protos: $(READY)
	cd protos && ../.venv/bin/buf format --diff --exit-code
	.venv/bin/buf lint protos
	@test -f protos/baseline.binpb || { echo 'protos/baseline.binpb is missing: bring it back, or make it with `make baseline`' >&2; exit 1; }
	.venv/bin/buf breaking protos --against protos/baseline.binpb

check-stubs: $(READY)
	.venv/bin/python tools/stubs.py --check

check-locks: $(READY)
	.venv/bin/python -m pytest -q tests/contract/test_locks.py

protos: $(READY)
	.venv/bin/python tools/stubs.py

baseline: $(READY)
	.venv/bin/buf build protos --as-file-descriptor-set --exclude-source-info --output protos/baseline.binpb

lock: $(READY)
	@.venv/bin/uv pip compile --quiet --python .venv/bin/python --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  $(if $(UPGRADE),--upgrade) $(foreach p,$(PYPROJECTS),--no-emit-package $(shell sed -n 's/^name = "\(.*\)"/\1/p' $(p))) \
	  --group dev $(PYPROJECTS) --output-file requirements.lock

bench: $(READY)
	@tools/programs.sh sshd ps
	@.venv/bin/python -m bench

images: $(READY)
	@deploy/images/build.sh $(IMAGES)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
