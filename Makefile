# Everything on a machine with Python 3.11 or newer and make: `make demo`, `make test`, `make test-rest`, `make quick`, `make check`,
# `make docs`, `make soak`, `make figures`, `make release`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
# tests side by side; many wait for servers, Spark and other processes, so one more than two cores
TESTS ?= 3
# what they write lies in memory where 2 GiB of it are free and programs may run there: small files, 0.2 GiB at a time
MEMORY := $(shell grep -qs '^[^ ]* /dev/shm [^ ]* [^ ]*noexec' /proc/mounts || \
	df -Pk /dev/shm 2>/dev/null | awk 'NR > 1 && $$4 > 2097152 {print "/dev/shm"}')
BIN := .venv/bin
PYTEST := $(if $(MEMORY),PYTEST_DEBUG_TEMPROOT=$(MEMORY)) $(BIN)/python -m pytest
INSTALL := $(BIN)/python -m pip install --quiet --no-warn-conflicts
BASE := .venv/.base
READY := .venv/.ready
SHARDING := .venv/.sharding
BROWSER := .venv/.browser
SITE := .venv/.site
# of `make figures`: which to measure, the file of a run that has printed them already and its commit, or an area to list
NAME :=
FROM :=
COMMIT :=
AREA :=

# what one process has compiled, all others of the tests read
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-rest quick check docs figures figures-short soak distributed release clean

demo: $(BASE)  ## a first run on a simulated log, where the best reachable is known: runs/demo/run/report.html
	$(BIN)/mgoe demo --out runs/demo

test: $(READY) $(SHARDING) $(BROWSER)  ## the tests of the library, in their short form
	$(PYTEST) -n $(TESTS) -m "not rest"

test-rest: $(READY)  ## those of Spark, the site, notebooks, packages, containers and benchmarks
	$(PYTEST) -n $(TESTS) -m rest

quick: $(READY)  ## unit and property tests that train nothing and start no process, for the edit loop
	$(PYTEST) -n 2 -m "not costly"

check: $(READY)  ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

docs: $(SITE)  ## the documentation site, where a warning is an error: build/docs/index.html
	$(BIN)/python -m sphinx -q -E -W --keep-going -c docs/site -d build/doctrees . build/docs

figures: $(READY)  ## write the pages from docs/figures; with NAME=... measure these figures before
	$(BIN)/python -m benchmarks.figures $(NAME) $(if $(FROM),--from $(FROM)) $(if $(COMMIT),--commit $(COMMIT)) $(if $(AREA),--area $(AREA))

figures-short: $(READY)  ## train on small logs, and compare the metrics with benchmarks/expected.json: half an hour
	$(BIN)/python -m benchmarks.short

soak: $(READY) $(SHARDING) $(BROWSER)  ## every test, in its long form and in random order
	MGOE_SOAK=1 $(BIN)/python -m pytest -n $(TESTS) -p randomly -v

distributed: $(READY) $(SHARDING)  ## TorchRec, for tables larger than a process
	$(BIN)/mgoe doctor

release: $(READY)  ## wheel, source distribution and their checksums, for the tag at this commit: dist/SHA256SUMS
	@test -z "$$(git status --porcelain)" || { echo "make: a release has no uncommitted files; commit them first" >&2; exit 2; }
	@version=$$($(BIN)/python -m hatchling version) && grep -q "^## $$version ([0-9]" CHANGELOG.md && grep -qx "version: $$version" CITATION.cff || \
	{ echo "make: this commit is version $$version, which must be at the top of CHANGELOG.md with its date, and in CITATION.cff; write it there, then tag" >&2; exit 2; }
	@$(BIN)/python -m benchmarks.figures --check
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	cd dist && sha256sum * > SHA256SUMS

clean:
	rm -rf .venv runs build dist reference

# the pip of today installs in half the time of the one that Python 3.11 brings
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed and none was found; name it with PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv --upgrade-deps .venv

$(BASE): pyproject.toml | $(BIN)/python
	$(INSTALL) --editable .
	@touch $@

# Python compiles what is imported, a third of all. PySpark has no wheel; pip makes one, and would compress its archives again
$(READY): pyproject.toml | $(BIN)/python
	@printf '[bdist_wheel]\ncompression = stored\n' > .venv/wheels.cfg
	DIST_EXTRA_CONFIG='$(CURDIR)/.venv/wheels.cfg' $(INSTALL) --no-compile --editable '.[dev,docs]'
	@touch $(BASE) $(SITE) $@

$(SITE): $(BASE)
	$(INSTALL) --editable '.[docs,serve]'
	@touch $@

# the pair built for torch 2.13 on CPUs, which would bring a CUDA build of torch with it; without it tests of sharded tables are skipped
$(SHARDING): $(READY)
	$(INSTALL) --no-compile tensordict pyre-extensions tqdm && \
	$(INSTALL) --no-compile --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 || echo "TorchRec has no build for this machine"
	@touch $@

# where the machine has no Chromium; without one tests of the page are skipped, and so are those of Redis and nginx without these
$(BROWSER): $(READY)
	@for name in chromium chromium-browser google-chrome chrome; do command -v $$name >/dev/null && exit; done; \
	$(BIN)/playwright install --only-shell chromium >/dev/null 2>&1 || \
	echo "Chromium is not installed and cannot be downloaded, so tests of the page are skipped; apt-get install chromium"
	@touch $@
