# Every target sets up what it needs; `make demo` and `make test` work on a fresh clone.
#
#   PYTHON=python3.12       which Python to make the environment with
#   TORCH_INDEX=ADDRESS     where to take torch from, https://download.pytorch.org/whl/cpu say for builds without CUDA
#   VENV=DIRECTORY          another environment, an active one say: VENV=$VIRTUAL_ENV
#
# A torch that PYTHON or VENV has is used (2.6 or newer), and then none is downloaded.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PIP    := -m pip --disable-pip-version-check
TORCH_INDEX  ?=
HAS_TORCH    := .ci/has_torch.py
TORCH_OF     := $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX))
OLDEST       := .venv-oldest
OLDEST_TORCH ?= $(shell grep '^torch==' constraints-oldest.txt)

.PHONY: setup demo check test test-fast test-slow test-faults test-oldest lint format docs bench dist clean

# Torch comes first, and by itself: what is there is never replaced, as it would be under a constraint of its version.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(HAS_TORCH) || $(PYTHON) $(HAS_TORCH) --share-with $(BIN)/python || \
		$(BIN)/python $(PIP) install --quiet -c constraints.txt $(TORCH_OF) $$(grep '^torch==' constraints.txt)
	grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	$(BIN)/python $(PIP) install --quiet -c $(VENV)/constraints.txt -e ".[dev]"
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

# The oldest versions that pyproject.toml admits, in an environment of their own; with a Python that they have wheels for,
# 3.11 or 3.12. Where no build of the oldest torch without CUDA is to be had: OLDEST_TORCH=torch==2.13.0.
# Old versions of packages call what newer ones of others deprecate; our own deprecations show in `make test`.
test-oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest -W ignore::DeprecationWarning --ignore tests/docs

$(OLDEST)/.ready: pyproject.toml constraints-oldest.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python $(HAS_TORCH) --exactly '$(OLDEST_TORCH)' || \
		$(OLDEST)/bin/python $(PIP) install --quiet $(TORCH_OF) '$(OLDEST_TORCH)'
	grep -v '^torch==' constraints-oldest.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python $(PIP) install --quiet -c $(OLDEST)/constraints.txt -e ".[test]"
	touch $@

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks

# Pages of names that are gone would be warnings, which are errors.
docs: $(READY)
	$(BIN)/python $(PIP) install --quiet -c $(VENV)/constraints.txt -e ".[docs]"
	rm -rf docs/generated
	$(BIN)/python -m sphinx -W -n -b html docs docs/_build/html

# The source distribution and the wheel, in dist/. On a package index the links of README lead to REPOSITORY.
dist: $(READY)
	$(BIN)/python .ci/dist.py $(REPOSITORY)

clean:
	rm -rf .venv $(OLDEST) docs/_build .pytest_cache .ruff_cache .mypy_cache
