# Every target sets up what it needs in .venv; a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# The real data sets are optional: tests that need them say so and are skipped.
ifneq ($(wildcard ../shared/data),)
export EQUIVOX_DATA ?= $(abspath ../shared/data)
endif

.PHONY: demo test lint docs bench table

demo: .venv/.installed
	$(BIN)/equivox demo

# One thread a process: two processes already fill two cores.
test: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

lint: .venv/.installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/.installed-docs
	$(BIN)/sphinx-build -q -W --keep-going -b doctest docs docs/_build/doctest
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

bench: .venv/.installed
	$(BIN)/python benchmarks/step_cost.py --out docs/results

# Hours of work: called again it goes on where it was, and writes what there is. Methods with their
# defaults everywhere; baselines tuned everywhere, for a method has to beat those; all tuned on two.
AVMNIST := avmnist:train_samples=3000
SETS := latent2,latent3,balanced,digits,$(AVMNIST),$(AVMNIST):image=image_degraded:audio=audio
SETS := $(SETS),$(AVMNIST):audio=audio,mfeat,emoji,har_phone_watch,hydraulic,hydraulic:target=valve
SETS := $(SETS),noise,xor,redundant
YARDSTICKS := joint,best_unimodal,ensemble,unimodal_losses,unimodal_init,modality_dropout,modality_lr
EVERY := SELECT data, tuned, method, seed, epoch, COLUMNS('^test_'), fingerprint FROM runs ORDER BY ALL
COMPARE = $(BIN)/equivox compare --seeds 5 --out runs/table
table: .venv/.installed
	$(COMPARE) --data $(SETS) --methods all
	$(COMPARE) --data $(SETS) --methods $(YARDSTICKS) --search 4
	$(COMPARE) --data latent2,digits --methods all --search 4
	$(COMPARE) --data latent2,digits,$(AVMNIST) --methods all --cost
	cp runs/table/table.md runs/table/table.csv runs/table/table.tex docs/results/
	$(BIN)/equivox runs --in runs/table --csv "$(EVERY)" > docs/results/runs.csv
	$(BIN)/python benchmarks/reference.py runs/table --out docs/results
	$(BIN)/python benchmarks/reading.py runs/table --out docs/results

# torch goes first and by name, so that a small CPU build is taken where the machine offers one.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'equivox needs Python 3.11 or newer. Found' \
	    "\`$(PYTHON)\`: $$($(PYTHON) --version 2>&1 || true)." \
	    'Name another: `make PYTHON=python3.12 $(MAKECMDGOALS)`.' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'Setting up needs the modules `venv` and `ensurepip`. Not found in' \
	    "\`$(PYTHON)\`. Install them (on Debian: \`apt-get install python3-venv\`)." >&2; exit 1; }
	@echo 'Setting up .venv, once; this takes a few minutes.'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt "$$(grep '^torch==' constraints.txt)" hatchling editables
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[bench,test,audio,cluster,hdf5,hf,image,trackers]'
	@touch $@

.venv/.installed-%: .venv/.installed
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[$*]'
	@touch $@
