# Every command goes through .venv, which the first one makes. Another Python: make install PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
# a Python environment keeps its programs in bin, on Windows in Scripts
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
RUN := $(BIN)/python
PAIRED := OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install course test test-machines lab build check format wheel publish-links release site clean

help:  ## show this
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

install: $(VENV)/.lab  ## make .venv with all that a learner needs

course: $(VENV)/.lab  ## run lessons 00 to 06, then show the ladder of losses, a play, the pictures
	$(RUN) notebooks/tools/course.py

# The notebooks first: a lesson that runs again in JupyterLab then finds its model trained. Two at a time, with a thread
# each: PyTorch's threads wait for one another where there are more of them than cores.
test: $(VENV)/.dev  ## every notebook's saved outputs against a fresh run, unit tests, the project's conventions
	$(PAIRED) --nbval --nbval-current-env --nbval-cell-timeout=1800 --color=no notebooks/*.ipynb notebooks/appendix/*.ipynb notebooks/solutions/*.ipynb
	$(PAIRED)

test-machines: $(VENV)/.dev  ## every notebook as if on other processors (an hour or more; goes on where it was interrupted)
	$(RUN) -m tests.benchmarks.machines

lab: $(VENV)/.lab  ## open the lessons in JupyterLab
	$(RUN) -m jupyterlab --notebook-dir=notebooks

build: $(VENV)/.dev  ## from the lessons' text: modules, answers, notebooks, solutions (what changed, and what depends on it)
	$(RUN) notebooks/tools/build.py

check: $(VENV)/.dev  ## do text, modules and notebooks agree, and is all formatted? (seconds; runs nothing)
	$(RUN) notebooks/tools/build.py --check
	$(RUN) notebooks/tools/style.py

format: $(VENV)/.dev  ## ruff's format and sorted imports, over all files and the lessons' cells
	$(RUN) notebooks/tools/style.py --fix

wheel: $(VENV)/.dev  ## the library as one file, dist/chargpt-*.whl: upload it where there is no network
	$(RUN) -m pip wheel --disable-pip-version-check --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

publish-links: $(VENV)/.dev  ## badges and addresses of the published course: make publish-links REPO=owner/name
	$(if $(filter undefined,$(origin REPO)),$(error name the repository: make publish-links REPO=owner/name))
	$(RUN) notebooks/tools/publish.py "$(REPO)"

release: $(VENV)/.dev  ## a zip to hand out: notebooks and library, without sources, solutions and answers
	$(RUN) notebooks/tools/release.py

site: $(VENV)/.site  ## the course as a website, dist/site, from the notebooks as they are (half a minute; runs no cell)
	$(RUN) notebooks/tools/website.py

clean:  ## remove what was made here: .venv, course/, trained models (not the downloads)
	rm -rf $(VENV) course dist data/cache .pytest_cache

# the stamps: an installation is repeated only when what it installs has changed
$(RUN):
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.lab: pyproject.toml constraints.txt | $(RUN)
	$(RUN) -m pip install --disable-pip-version-check -c constraints.txt -e '.[lab]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt site/constraints.txt | $(RUN)
	$(RUN) -m pip install --disable-pip-version-check -c constraints.txt -c site/constraints.txt -e '.[lab,dev]'
	touch $@ $(VENV)/.lab

$(VENV)/.site: pyproject.toml constraints.txt site/constraints.txt | $(RUN)
	$(RUN) -m pip install --disable-pip-version-check -c constraints.txt -c site/constraints.txt -e '.[lab,site]'
	touch $@ $(VENV)/.lab
