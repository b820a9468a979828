# make run       train and export a network, starting from nothing
# make evaluate  evaluate the exported network on the test images
# make predict   classify IMAGES=data/digitspng/test/7, a file or a folder
# make convert   convert the exported network to TensorFlow Lite, SavedModel and ONNX, and compare each with the graph
# make test      run all tests
# make guide     run the commands and programs in the documentation; PAGES=docs/convert.md: on some pages
# make chaos     kill training sixty times, and compare the resumed runs with uninterrupted ones; then corrupt projects
#                at random 300 times; in twenty minutes
# make bench     run the benchmarks; with QUICK=1 the most important ones, in a minute
# make figures   regenerate the figures in docs/, from training runs on data/cifar10png; in five minutes
# make lint      check the code's style; make format fixes it where possible
# make venv      create the environment only; make clean deletes all environments
#
# PYTHON=python3.7 | python3.11 | /path/to/python   which Python, and so which TensorFlow; default: the last one used
# DATASET=digits | cifar10 | PATH                   the data set (PATH: a folder with train and test in it)
# MODEL=lenet5   EPOCHS=30                          the network, and how long to train it

.DEFAULT_GOAL := start
.PHONY: start help venv run evaluate predict convert test guide chaos lint format bench figures python constraints clean
SHELL := /bin/sh

start:
	@echo "make run    trains a network on handwritten digits, starting from nothing"
	@echo "make test   runs all tests"
	@echo "make help   lists the other commands"

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

ifneq ($(filter-out start help clean,$(MAKECMDGOALS)),)
# Without PYTHON, the last environment used.
LAST := $(wildcard .venv/$(shell cat .venv/last 2>/dev/null)/bin/python)
PYTHON ?= $(LAST)
# ruff is only installed with the current TensorFlow.
FOUND := $(shell sh .ci/find_python.sh $(if $(filter lint format,$(MAKECMDGOALS)),\
	python3.11 python3.12 python3.13,"$(PYTHON)"))
ifeq ($(firstword $(FOUND)),error:)
$(error $(FOUND))
endif
endif
VERSION := $(word 1,$(FOUND))
TENSORFLOW := $(word 2,$(FOUND))
BASE_PYTHON := "$(wordlist 3,99,$(FOUND))"
VENV := .venv/$(VERSION)
INSTALLED := $(VENV)/installed
CONVERTERS := $(VENV)/installed-converters
# The pip that comes with Python 3.6 and 3.7 is too old to choose packages that they can run.
PIP := $(if $(filter 1.14.0,$(TENSORFLOW)),pip==21.3.1,pip)

DATASET ?= digits
IMAGES ?= data/digitspng/test/7
DATA := $(DATASET)
ifeq ($(DATASET),digits)
EPOCHS ?= $(if $(filter mobilenetv2,$(MODEL)),3,30)
endif
ifneq ($(findstring :$(DATASET):,:digits:cifar10:),)
DATA := data/$(DATASET)png
PREPARE := $(VENV)/bin/python run.py prepare $(DATASET)
endif

venv: python $(INSTALLED)
	@echo "Python $(VERSION) with TensorFlow $(TENSORFLOW) is in $(VENV). Next: make run, make test"

run: python $(INSTALLED)
	@$(PREPARE)
	@[ -d "$(DATA)" ] || { echo "error: DATASET=$(DATASET): found no such folder, expected digits, cifar10 or a folder \
	with train and test in it"; exit 2; }
	@train="$(DATA)"; [ ! -d "$$train/train" ] || train="$$train/train"; \
	for name in val valid validation; do [ ! -d "$(DATA)/$$name" ] || valid="$(DATA)/$$name"; done; set -x; \
	$(VENV)/bin/python run.py --train_path "$$train" --test_path "$(DATA)/test" $${valid:+--valid_path "$$valid"} \
		$(if $(MODEL),--model_arch "$(MODEL)") $(if $(EPOCHS),--num_epoch "$(EPOCHS)")

# Some tests write names with umlauts, which Python 3.6 cannot where no locale is set.
test: export LANG := $(or $(LANG),C.UTF-8)
test: python $(INSTALLED) $(CONVERTERS)
	@$(VENV)/bin/python -m pytest tests -n 2 --dist loadfile

guide: python $(INSTALLED) $(CONVERTERS)
	@$(VENV)/bin/python tests/docs/run_docs.py $(PAGES)

# The code must run on Python 3.6; ruff supports 3.7 and later.
PARSE := import ast, sys; [ast.parse(open(path, encoding="utf-8").read(), path) for path in sys.argv[1:]]

lint: $(INSTALLED)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@set -- $$(sh .ci/find_python.sh python3.6); \
	if [ "$$1" = 3.6 ]; then shift 2; find . -name '*.py' -not -path './.venv/*' -exec "$$*" -c '$(PARSE)' {} +; \
	else echo "not parsed by Python 3.6, which was not found"; fi

format: $(INSTALLED)
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

evaluate: python $(INSTALLED)
	@$(VENV)/bin/python run.py evaluate $(if $(MODEL),--model_arch "$(MODEL)")

predict: python $(INSTALLED)
	@$(VENV)/bin/python run.py predict "$(IMAGES)" $(if $(MODEL),--model_arch "$(MODEL)")

convert: python $(INSTALLED) $(CONVERTERS)
	@$(VENV)/bin/python -m convert $(if $(MODEL),--model_arch "$(MODEL)")

chaos: python $(INSTALLED)
	@$(VENV)/bin/python tests/helpers/chaos.py
	@$(VENV)/bin/python -m pytest tests/test_mutations.py --hypothesis-profile=long

bench: python $(INSTALLED)
	@$(VENV)/bin/python tests/bench/benchmark.py $(if $(QUICK),--quick)
	@$(if $(QUICK),,$(VENV)/bin/python tests/bench/cluster_benchmark.py)

figures: python $(INSTALLED)
	@$(VENV)/bin/python docs/figures/make_figures.py

python:
	@mkdir -p .venv; echo $(VERSION) > .venv/last
	@echo "Python $(VERSION) with TensorFlow $(TENSORFLOW): $(BASE_PYTHON)"

# pip, with a line for each package, to show progress. $(1): what to install.
define install
	@{ $(VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off --no-color \
		$(1) --constraint constraints/$(VERSION).txt; echo $$? > $(VENV)/pip-status; } \
		| sed -n 's/^Collecting \([^ ;]*\).*/  \1/p; s/^Installing.*/  installing them .../p'; \
	exit $$(cat $(VENV)/pip-status)
endef

# `installed` is written last, so that an interrupted installation is repeated.
$(INSTALLED): requirements.txt constraints/$(VERSION).txt
	@echo "Installing TensorFlow $(TENSORFLOW) and what it needs into $(VENV), once; this takes one to four minutes:"
	@$(BASE_PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$(PIP)"
	$(call install,--requirement requirements.txt)
	@found=$$($(VENV)/bin/python -c "import cv2" 2>&1) || { echo "error: OpenCV cannot be loaded: $$(echo "$$found" | tail -n 1); \
	for libgthread, on Debian and Ubuntu: sudo apt-get install libglib2.0-0"; exit 2; }
	@touch $@

$(CONVERTERS): $(INSTALLED) convert/requirements.txt
	@echo "Installing the converters into $(VENV), once:"
	$(call install,--requirement convert/requirements.txt)
	@touch $@

# Pin all packages that both requirements.txt pull in, for one Python.
constraints:
	rm -rf .venv/constraints
	$(BASE_PYTHON) -m venv .venv/constraints
	.venv/constraints/bin/python -m pip install --quiet "$(PIP)"
	.venv/constraints/bin/python -m pip install --quiet --requirement requirements.txt --requirement convert/requirements.txt
	echo "# Generated by: make constraints PYTHON=python$(VERSION)" > constraints/$(VERSION).txt
	.venv/constraints/bin/python -m pip freeze --all --exclude pip >> constraints/$(VERSION).txt
	rm -rf .venv/constraints

clean:
	rm -rf .venv
