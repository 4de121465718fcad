# Every target sets up what it needs; `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: setup demo check test test-fast test-slow test-faults lint format docs bench clean

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

setup: $(READY)

demo: $(READY)
	$(BIN)/python examples/predict_loss.py

# A quick file or two of every room, without tests that start processes.
FAST := tests/test_layers.py tests/docs/test_api.py tests/tangent tests/statistics tests/spectrum tests/testing \
	tests/cells/test_equations.py tests/cells/test_known_spectra.py tests/cells/test_encoder.py \
	tests/lyapunov/test_spectrum.py tests/lyapunov/test_warnings.py tests/gradients/test_objective.py \
	tests/networks/test_transformer.py tests/networks/test_bad_input.py \
	tests/test_storage.py tests/test_orthonormalize.py tests/test_covariant.py

check: lint
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/test_layers.py

test: $(READY)
	$(BIN)/python -m pytest

test-fast: $(READY)
	$(BIN)/python -m pytest -q -m "not slow and not processes" $(FAST)

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-faults: $(READY)
	$(BIN)/python -m pytest -m "faults or not slow" tests/test_faults.py tests/population/test_population_dask.py \
		tests/population/test_claims.py tests/population/test_trust.py tests/spectrum/test_cache.py

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks

docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	$(BIN)/python -m sphinx -W -b html docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build .pytest_cache .ruff_cache .mypy_cache
