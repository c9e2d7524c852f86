# make book    build the website in _build/html
# make test    everything that CI checks
# make latest  the same with the newest versions of all packages, and a report
# make lab     open the chapters in JupyterLab, sliders and training live
# make serve   look at the built site on http://localhost:8000
# make bench   print the ratios that benchmarks/ measures
# make frameworks  ask other frameworks' batch norms again, in their newest releases (downloads much; ONLY="mlx objax")
# make notebooks   execute the chapters and store them normalised
# make address     write the repository's address, set in _config.yml, into the chapters
# make clean   remove what was built and the environment
PYTHON ?= python3
VENV := .venv
LATEST := .venv-latest
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CACHE := _build/.jupyter_cache
PACKAGES := -r requirements.txt
STEPS := lint units executed strict pages
BOOK = $(BIN)/jupyter-book build . -W -n --keep-going
# Make a target, after what stands before the command, and say how long it took.
timed = began=$$(date +%s); $(2) $(MAKE) --no-print-directory $(1) || exit 1; echo "$(1) took $$(($$(date +%s) - began)) s"
# What the pages show depends on these; the notebook cache does not look at them.
INPUTS = $(shell find bnlib data requirements.txt _config.yml _ext assets -type f -not -path '*/__pycache__/*' | sort)

export PYTHONPATH :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A Jupyter that is installed elsewhere must not lend its kernels or settings.
export JUPYTER_PREFER_ENV_PATH := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.PHONY: book test site-tested units-beside latest lab serve bench frameworks notebooks address clean $(STEPS)

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("The book needs Python 3.11 or newer; " \
	    + sys.executable + " is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "This Python has no venv module. On Debian or \
	Ubuntu: apt install python3-venv. Or name another Python: make PYTHON=... ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PACKAGES)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

_build/inputs: $(INSTALLED) $(INPUTS)
	@mkdir -p _build
	@cat $(INPUTS) | cksum > _build/inputs.new
	@if cmp -s _build/inputs.new _build/inputs; then rm _build/inputs.new; touch _build/inputs; else \
	    rm -rf _build/html _build/.doctrees _build/.jupyter_cache; mv _build/inputs.new _build/inputs; fi

book: $(INSTALLED) _build/inputs
	@mkdir -p $(CACHE)
	$(BIN)/jcache notebook --cache-path $(CACHE) add chapters/*.ipynb
	$(BIN)/jcache project --cache-path $(CACHE) execute --executor local-parallel --timeout 300
	$(BOOK)
	@echo "The book is in _build/html/index.html; make serve shows it."

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/oxlint --deny-warnings assets/engine assets/training assets/train_here.js
	@if command -v tsc >/dev/null; then tsc -p assets/engine/jsconfig.json; else \
	    echo "The types in assets/engine were not checked: npm install --global typescript gives tsc"; fi

units: $(INSTALLED)
	$(BIN)/python -m pytest --doctest-modules bnlib tests/unit tests/property tests/engine -n 2 --dist loadgroup

executed: $(INSTALLED)
	rm -rf _build/strict
	$(BIN)/python -m pytest --nbval --nbval-sanitize-with tests/book/sanitize.cfg --nbval-cell-timeout 300 \
	    -p tools.nbval_kernels -p tools.nbval_cache --executed _build/strict/$(CACHE) -p no:cacheprovider -n 2 --dist loadfile chapters

strict: $(INSTALLED)
	$(BOOK) --path-output _build/strict

pages: $(INSTALLED)
	$(BIN)/python -m pytest tests/book -n 2 --dist loadgroup

# The steps of the site often wait: for one process, for the browser. The units run beside them and take what they leave.
test: lint
	@$(MAKE) --no-print-directory -j 2 site-tested units-beside

site-tested: $(INSTALLED)
	@for step in executed strict pages; do $(call timed,$$step); done

units-beside: $(INSTALLED)
	@$(call timed,units,nice -n 19)

# In an environment of its own, with what pyproject.toml asks for and no more; every step is tried, and the report tells.
latest:
	rm -rf $(LATEST)
	@mkdir -p _build
	$(MAKE) VENV=$(LATEST) PACKAGES='--upgrade setuptools .[notebook,book]' $(LATEST)/.installed
	@{ echo "Other versions than in requirements.txt (< there, > newest):"; \
	    $(LATEST)/bin/python -m pip freeze --all --exclude-editable | grep -v '^bnlib' | sort -f > _build/newest; \
	    grep == requirements.txt | sort -f | diff - _build/newest | grep '^[<>]'; echo; } > _build/latest.txt
	@for step in $(STEPS); do \
	    if $(MAKE) --no-print-directory VENV=$(LATEST) $$step; then result=passed; else result=FAILED; fi; \
	    echo "$$step: $$result" >> _build/latest.txt; done 2>&1 | tee _build/latest.log
	@cat _build/latest.txt
	@! grep -q FAILED _build/latest.txt

lab: $(INSTALLED)
	$(BIN)/jupyter lab chapters

serve: book
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

bench: $(INSTALLED)
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

frameworks:
	$(PYTHON) findings/frameworks/measure.py $(ONLY:%=--only %)

notebooks: $(INSTALLED)
	$(BIN)/python -m tools.notebooks

address: $(INSTALLED)
	$(BIN)/python -m tools.notebooks --first-cell

clean:
	rm -rf _build $(VENV) $(LATEST) *.egg-info
