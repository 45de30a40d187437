# Two commands do everything from a bare checkout: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO := latentwire_proto/v1/latent_codec.proto

.PHONY: demo install test test-slow lint lint-unit types arrows proto proto-drift clean

demo: install
	$(BIN)/python -m benchmarks.demo

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	touch $@

# A process for each core, and in it one thread for a model: more of them only wait for each other. A test that hangs may
# hang in what it leaves behind, too: its process ends, and with it the run, which names it.
test: lint types arrows proto-drift
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile \
		--timeout-method thread --max-worker-restart 0

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install lint-unit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
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
	rm -rf $(VENV) build dist demo-output .mypy_cache .ruff_cache .pytest_cache
