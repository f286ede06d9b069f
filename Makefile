# From a bare clone: `make lab` opens the lessons, `make demo` runs the main job, `make test` runs every check.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p) 2>/dev/null)))
VENV := .venv
COLAB := .venv-colab
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One thread each: two small models side by side are faster than one on two threads. In the order of tests/conftest.py.
# Two workers on two cores: with three, tests that wait for a kernel or a browser run out of time.
WORKERS ?= 2
PARALLEL = -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL)

.PHONY: lab demo check test types pytest nightly test-colab data pretrain records notebooks colab book wheel bench bench-more gpu fidelity \
  rewards crash clean

lab: $(INSTALLED)            ## JupyterLab on lesson 00, at the root so that its links lead somewhere
	$(BIN)/python -m forgetlab lab

demo: $(INSTALLED)           ## the main job, headless, on the embedded world
	$(BIN)/python -m forgetlab demo

check: $(INSTALLED)          ## the fast part: lint, types, floors, unit tests, the docstrings' examples
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory -j 2 types pytest ONLY='-m "not slow"'

test: $(INSTALLED)           ## everything but the long ones, for which others try the same in parts; CI: FORGETLAB_LONG=1
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory -j 2 types pytest

types: $(INSTALLED)          ## types and floors; `check` and `test` look at them beside the tests
	$(BIN)/mypy
	$(BIN)/lint-imports

pytest: $(VENV)/.book
	$(PYTEST) $(ONLY) tests

nightly: $(INSTALLED)        ## the tests on generated inputs, fifty times as many and new ones each time; the long ones
	FORGETLAB_NIGHTLY=1 $(PYTEST) -m "hypothesis or nightly or long" tests

test-colab: $(COLAB)/.installed  ## every lesson and lab on a machine as Google Colab hands it out
	OMP_NUM_THREADS=1 $(COLAB)/bin/python -m pytest $(PARALLEL) tests/notebooks tests/teaching/test_quiz.py

data: $(INSTALLED)           ## regenerate data/tasks and the manifest, byte for byte
	$(BIN)/python -m forgetlab.sources.world.write

# One thread each: the two run side by side, and the result does not depend on how many cores there are.
pretrain: $(INSTALLED)       ## rebuild the shipped models (minutes), their cards and the manifest
	OMP_NUM_THREADS=1 $(BIN)/python -m forgetlab pretrain tiny-gpt --out data/models/tiny-gpt & \
	OMP_NUM_THREADS=1 $(BIN)/python -m forgetlab pretrain tiny-bert --out data/models/tiny-bert && wait
	$(BIN)/python -m forgetlab.sources.world.write

records: $(INSTALLED)        ## run every lab at all settings of its grid (half an hour): what it shows at once
	OMP_NUM_THREADS=1 $(BIN)/python -m forgetlab.labs.write

notebooks: $(INSTALLED)      ## execute every lesson and write it back
	$(BIN)/python -m tests.notebooks.execute

# Badges, set-up cells and links point at a repository: make colab REPO=https://github.com/OWNER/NAME
colab: $(INSTALLED)          ## "Open in Colab" badges for a repository
	$(BIN)/python -m tests.notebooks.colab "$(REPO)"

book: $(VENV)/.book          ## dist/book: the lessons and every public name as a static site; a page that trains
	$(BIN)/python -m book.make dist/book
	@echo "the book: dist/book/index.html"

wheel: $(INSTALLED)          ## dist/forgetlab-*.whl, with the data inside
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

bench: $(INSTALLED)          ## speed, as ratios within one run
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/fisher.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/commands.py

bench-more: $(INSTALLED)     ## what a remedy adds to a step, and how costs grow (half an hour)
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/scale.py

# On a machine with a GPU. Anywhere: make gpu DEVICE=cpu SMALL=1
gpu: $(INSTALLED)            ## what a card does: tests that need CUDA, speed, memory; at most eight minutes
	$(BIN)/python benchmarks/gpu.py --device $(or $(DEVICE),cuda) $(if $(SMALL),--small) $(if $(OUT),--out "$(OUT)")

fidelity: $(INSTALLED)       ## known results reproduced, and every remedy at its best strength
	$(BIN)/python benchmarks/fidelity.py
	$(BIN)/python -m benchmarks.remedies

rewards: $(INSTALLED)        ## demonstrations and rewards at equal reward (20 minutes)
	$(BIN)/python -m benchmarks.rewards

crash: $(INSTALLED)          ## runs killed at random moments and resumed, many times over (half an hour)
	$(BIN)/python -m tests.crashing compare 50
	$(BIN)/python -m tests.crashing compare 5 --processes 2
	$(BIN)/python -m tests.crashing trainer 50

clean:
	rm -rf $(VENV) $(COLAB) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(INSTALLED): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@command -v chromium chromium-browser google-chrome >/dev/null || { [ "$$(id -u)" = 0 ] && \
	  command -v apt-get >/dev/null && apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 || \
	  echo "no Chromium, and it could not be installed: the browser tests will be skipped"
	@touch $@

$(VENV)/.book: requirements-book.txt $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-book.txt
	@touch $@

# Colab's packages in front of everything else that $(VENV) has (torch is not installed twice). The tests make machines
# without forgetlab from it: tests/notebooks/bare.py.
$(COLAB)/.installed: requirements-colab.txt $(INSTALLED)
	test -x $(COLAB)/bin/python || $(PYTHON) -m venv $(COLAB)
	rm -f $(COLAB)/lib/python3.*/site-packages/behind.pth
	$(COLAB)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-colab.txt
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > $$(echo $(COLAB)/lib/python3.*/site-packages)/behind.pth
	echo "$(CURDIR)" >> $$(echo $(COLAB)/lib/python3.*/site-packages)/behind.pth
	@touch $@
