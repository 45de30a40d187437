# Two commands do everything from a bare checkout: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO := latentwire_proto/v1/latent_codec.proto

.PHONY: demo install check format test test-slow unit coverage mutation fuzz docs lint lint-unit lint-workflows types arrows \
	proto proto-drift clean

demo: install
	$(BIN)/python -m benchmarks.demo

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	touch $@

# What to run before each commit; it takes about a minute on two cores.
check: lint types arrows unit

# A process for each core, and in it one thread for a model: more of them only wait for each other. A test that hangs may
# hang in what it leaves behind, too: its process ends, and with it the run, which names it.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --timeout-method thread --max-worker-restart 0
ON_ALL_CORES := --numprocesses logical --maxprocesses 8

test: lint types arrows proto-drift
	$(PYTEST) $(ON_ALL_CORES) --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m slow

# The tests that need no torch, no server process and no wheel.
unit: install
	HYPOTHESIS_PROFILE=$${HYPOTHESIS_PROFILE:-dev} $(PYTEST) --unit --quiet -r fE $(ON_ALL_CORES) --dist worksteal

# All tests, with the lines that they reach; the floor stands in pyproject.toml.
coverage: install
	$(PYTEST) $(ON_ALL_CORES) --dist loadfile --cov --cov-report term:skip-covered --cov-report html:coverage-output

# Change one operator or number at a time and run the nearest tests: tests/mutation.py names the modules and the tests.
mutation: install
	$(BIN)/python -m tests.mutation

# Property tests with many examples, then ten minutes each: damaged payloads, image files, gRPC and HTTP requests.
MINUTES ?= 10
fuzz: install
	HYPOTHESIS_PROFILE=nightly $(PYTEST) $(ON_ALL_CORES) tests/core tests/codec/lat tests/codec/images tests/client
	for target in lat images rpcs doors; do $(BIN)/python -m tests.fuzz.$$target --minutes $(MINUTES) || exit 1; done

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: install
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lint: install lint-unit lint-workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/protolint lint proto
	$(BIN)/hadolint Dockerfile

# The unit's executable need not exist here, so a copy that starts another one is verified.
lint-unit:
	@if ! command -v systemd-analyze >/dev/null; then \
		echo 'SKIPPED: deploy/latentwire.service was not linted: there is no systemd-analyze here'; \
	else \
		set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
		sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' deploy/latentwire.service > "$$folder/latentwire.service"; \
		systemd-analyze verify --recursive-errors=one "$$folder/latentwire.service"; \
	fi

# actionlint is no Python package: it is run where it is installed.
lint-workflows:
	@if ! command -v actionlint >/dev/null; then \
		echo 'SKIPPED: .github/workflows was not linted: there is no actionlint here'; \
	else \
		actionlint; \
	fi

types: install
	$(BIN)/mypy

arrows: install
	$(BIN)/lint-imports

# The committed stubs are what this writes; `make test` fails where they differ.
proto: install
	$(BIN)/python proto/generate.py

proto-drift: install
	$(BIN)/python proto/generate.py --check

clean:
	rm -rf $(VENV) build dist site demo-output coverage-output .coverage .mypy_cache .ruff_cache .pytest_cache
