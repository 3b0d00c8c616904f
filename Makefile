# make book     run the notebooks and build the site; again: only what has changed
# make test     check style and types, run all tests; make test-fast: but those that need the real model
# make bounds   the fast tests with the oldest versions that pyproject.toml allows; RESOLUTION=highest: the newest
# make bench    time the slow parts
# make serve    look at the site on http://127.0.0.1:8000
# make lock     renew requirements.lock from pyproject.toml; remove the lock first to get the newest versions
# make clean    remove what the book was built into

# Python 3.11 to 3.14, only to make .venv with.
PYTHON ?= python3
# A file in notebooks/profiles: smoke, default or paper.
PROFILE ?= default
# What `make bounds` asks of uv: lowest-direct or highest.
RESOLUTION ?= lowest-direct
# Address of another package index, for torch only: PyTorch's own has builds for a CPU, and for each CUDA version.
TORCH_INDEX ?=

VENV := .venv/bin/python
TORCH := torch==2.13.0

.PHONY: book check test test-fast bounds bench serve lock clean

book: .venv/ready
	$(VENV) book/build.py --profile $(PROFILE)

# The same in .pre-commit-config.yaml.
check: .venv/ready
	$(VENV) -m ruff check .
	$(VENV) -m ruff format --check .
	$(VENV) -m mypy

test: check
	$(VENV) -m pytest

test-fast: check
	$(VENV) -m pytest -m "not slow"

bounds:
	rm -rf .venv-bounds
	$(PYTHON) -m venv .venv-bounds
	.venv-bounds/bin/python -m pip install uv
	.venv-bounds/bin/uv --no-config pip install --python .venv-bounds/bin/python \
		--resolution $(RESOLUTION) --requirements pyproject.toml --extra book --extra dev --extra sweep --editable .
	.venv-bounds/bin/python -m pytest -m "not slow"

bench: .venv/ready
	for script in tests/benchmarks/*.py; do $(VENV) $$script || exit 1; done

serve:
	$(PYTHON) -m http.server --bind 127.0.0.1 --directory _build/$(PROFILE)/html 8000

clean:
	rm -rf _build

# No package is compiled on installation, which takes as long as all the rest: Python compiles what it imports.
# The lock has all of torch's requirements, so that torch itself brings nothing but its CUDA packages.
# What `ready` holds is the seconds that it took, for the page on time and memory.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 14) or sys.exit("This book needs Python 3.11 to 3.14, and $(PYTHON) is %d.%d. Name another: make PYTHON=python3.13" % v)'
	$(PYTHON) -m venv .venv
	@date +%s > .venv/began
	$(VENV) -m pip install --no-compile --require-hashes --no-deps -r requirements.lock
	$(VENV) -m pip install --no-compile $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)") $(TORCH)
	$(VENV) -m pip install --no-deps --no-build-isolation -e .
	$(VENV) -m pip check
	@echo $$(($$(date +%s) - $$(cat .venv/began))) > $@

lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install uv
	.venv-lock/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-annotate --no-header --no-emit-index-url \
		--no-emit-package torch --quiet --output-file requirements.lock
	rm -rf .venv-lock
