# make figures   environment, weights, all notebooks, figures and claims
# make redraw    figures and claims from the shipped records, byte for byte; needs no torch (requirements-read.txt)
# make test      environment, style check, tests
# make quick     the tests that train and run nothing, in under two minutes
# make binder    Binder's environment, without torch: notebook 00, the explorer, redraw
# make site      the rendered site in runs/site/html: notebooks with their results, claims, glossary
# make browser   the explorer in JupyterLab in a headless Chromium (apt-get install chromium, or playwright install)
# make engine    snakemake, for grids on many machines
# make course    the assignments' environment and the folder of a course: make course COURSE=runs/2027 COURSE_SEED=2027
# make kernel    lets that environment grade assignment 7, which trains models: a kernel that runs in the environment above
PYTHON  ?= python3
VENV    ?= .venv
PROFILE ?= cpu
BIN     := $(VENV)/bin
COURSE  ?= runs/course
COURSE_SEED ?= 0
# An environment that is there already serves for reading, too.
READER  := $(if $(wildcard $(VENV)/.installed),$(VENV),$(VENV)-read)
KERNEL  := $(VENV)-course/share/jupyter/kernels/calibration-world/kernel.json

QUICK   := tests/test_*.py tests/running/test_manifest.py tests/running/test_verify.py tests/training/test_losses.py \
           $(addprefix tests/,data metrics plots records semantics studies)

.PHONY: figures test quick bench env engine course kernel redraw binder site browser clean

figures: env
	$(BIN)/python -m calib_utils run --profile $(PROFILE)
	$(BIN)/python -m calib_utils readme
	$(BIN)/python -m calib_utils show

redraw: $(READER)/.installed
	$(READER)/bin/python -m calib_utils redraw

test: env engine binder kernel
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest
	$(VENV)-course/bin/python -m pytest --noconftest tests/test_course.py

quick: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not real_model and not slow" $(QUICK)

bench: env
	$(BIN)/python -m calib_utils bench sampling
	$(BIN)/python -m calib_utils bench chains
	$(BIN)/python -m calib_utils bench training
	$(BIN)/python -m calib_utils bench family
	$(BIN)/python -m calib_utils bench monitoring

course: $(VENV)-course/.installed
	$(VENV)-course/bin/python notebooks/assignments/build_course.py --seed $(COURSE_SEED) --folder $(COURSE)

site: $(VENV)-site/.installed
	$(VENV)-site/bin/sphinx-build -q -b html site runs/site/html

browser: binder $(VENV)-site/.installed
	$(VENV)-site/bin/python -m pytest -o addopts= -q site/test_explorer_in_a_browser.py

kernel: $(KERNEL)
env: $(VENV)/.installed
binder: $(VENV)-binder/.installed
engine: $(VENV)-batch/.installed

$(VENV)/.installed: requirements.txt requirements-no-deps.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-no-deps.txt
	touch $@

$(VENV)-read/.installed: requirements-read.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)-read
	$(VENV)-read/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-read.txt
	touch $@

$(VENV)-batch/.installed: requirements-batch.txt
	$(PYTHON) -m venv $(VENV)-batch
	$(VENV)-batch/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-batch.txt
	touch $@

$(VENV)-course/.installed: requirements-course.txt
	$(PYTHON) -m venv $(VENV)-course
	$(VENV)-course/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-course.txt
	touch $@

$(VENV)-binder/.installed: binder/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)-binder
	$(VENV)-binder/bin/python -m pip install --quiet --disable-pip-version-check -r binder/requirements.txt
	touch $@

$(VENV)-site/.installed: requirements-site.txt binder/requirements.txt
	$(PYTHON) -m venv $(VENV)-site
	$(VENV)-site/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-site.txt
$(KERNEL): $(VENV)/.installed $(VENV)-course/.installed
	$(BIN)/python -m ipykernel install --prefix $(VENV)-course --name calibration-world --display-name "Calibration world (torch)"
	touch $@

clean:
	rm -rf runs
