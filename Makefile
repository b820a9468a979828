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
# PYTHON=python3.7 | python3.11 | /path/to/python   which Python, and so which TensorFlow; default: the last one used, at
#                                                   first python3 if it fits, otherwise the newest that does
# DATASET=digits | cifar10 | PATH                   the data set (PATH: a folder with train and test in it)
# MODEL=lenet5   EPOCHS=30                          the network, and how long to train it
# GPU=1                                             also install CUDA's libraries, which TensorFlow 2.21 needs for a GPU

.DEFAULT_GOAL := start
.PHONY: start help venv run evaluate predict convert test guide chaos lint format bench figures environment python moved \
	constraints clean
SHELL := /bin/sh

start:
	@echo "make run    trains a network on handwritten digits, starting from nothing"
	@echo "make test   runs all tests"
	@echo "make help   lists the other commands"

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

# What users give is text, in which make must not expand $(shell ...), also where it hands it to recipes as environment.
GIVEN := PYTHON DATASET IMAGES MODEL EPOCHS QUICK PAGES GPU
$(foreach name,$(GIVEN),$(if $(filter undefined,$(origin $(name))),,$(eval override $(name) := $$(value $(name)))))
# Otherwise, EPOCH=3 would train for 30 epochs.
UNKNOWN := $(foreach name,$(filter-out $(GIVEN) SHELL LANG,$(.VARIABLES)),$(if $(filter command,$(origin $(name))),$(name)))
ifneq ($(strip $(UNKNOWN)),)
$(error error: variable $(firstword $(UNKNOWN)): found no such variable, expected one of $(GIVEN))
endif

# A variable's text as one word for the shell, whatever is in it: spaces, quotes, $.
quote = '$(subst ','\'',$(value $(1)))'
quoted_words = $(foreach word,$(value $(1)),'$(subst ','\'',$(word))')

define LINE_BREAK


endef
$(foreach name,PYTHON DATASET IMAGES MODEL CURDIR,$(if $(findstring $(LINE_BREAK),$(value $(name))),$(error error: \
	$(name:CURDIR=the folder of this project): found a line break, which make cannot use; rename the folder)))

ifneq ($(filter-out start help clean,$(MAKECMDGOALS)),)
# Without PYTHON, the last environment used.
ifndef PYTHON
PYTHON := $(wildcard .venv/$(shell cat .venv/last 2>/dev/null)/bin/python)
endif
# ruff is only installed with the current TensorFlow.
FOUND := $(shell sh .ci/find_python.sh $(if $(filter lint format,$(MAKECMDGOALS)),\
	python3.11 python3.12 python3.13,$(call quote,PYTHON)))
ifeq ($(firstword $(FOUND)),error:)
$(error $(FOUND))
endif
ifneq ($(filter-out 0 1,$(GPU))$(word 2,$(GPU)),)
$(error error: GPU=$(GPU): expected 1)
endif
ifeq ($(GPU) $(word 2,$(FOUND)),1 1.14.0)
$(error error: GPU=1: found TensorFlow 1.14, expected 2.21 (Python 3.11 to 3.13); pip has no CUDA 10.0, which 1.14 needs, \
	see docs/setup.md)
endif
endif
VERSION := $(word 1,$(FOUND))
TENSORFLOW := $(word 2,$(FOUND))
BASE_PYTHON := $(subst $(VERSION) $(TENSORFLOW) ,,$(FOUND))
VENV := .venv/$(VERSION)
INSTALLED := $(VENV)/installed
CONVERTERS := $(VENV)/installed-converters
KERNEL := $(if $(filter 1.14.0,$(TENSORFLOW)),,$(VENV)/installed-kernel)
# Scripts in an environment hold its path, as does `installed`: whether it was made elsewhere.
MOVED := $(shell [ ! -s $(INSTALLED) ] || [ "$$(cat $(INSTALLED))" = "$$(cd ./$(VENV) && pwd -P)" ] || echo moved)
CUDA := $(if $(filter 1,$(GPU)),$(VENV)/installed-cuda)
# The pip that comes with Python 3.6 and 3.7 is too old to choose packages that they can run.
PIP := $(if $(filter 1.14.0,$(TENSORFLOW)),pip==21.3.1)
INSTALL = sh .ci/pip_install.sh $(VENV)

DATASET ?= digits
IMAGES ?= data/digitspng/test/7
# The settings with which LeNet-5 converges on so few images: with the defaults, its validation accuracy zigzags.
SETTINGS :=
ifeq ($(value DATASET),digits)
ifndef EPOCHS
EPOCHS := $(if $(filter mobilenetv2,$(MODEL)),3,30)
endif
ifeq ($(or $(MODEL),lenet5),lenet5)
SETTINGS := --augment crop --step_rate 15
endif
endif

venv: environment
	@echo "Python $(VERSION) with TensorFlow $(TENSORFLOW) is in $(VENV). Next: make run, make test"

run: environment
	@dataset=$(call quote,DATASET); data=$$dataset; valid=; \
	case $$dataset in digits | cifar10) \
		data=data/$${dataset}png; $(VENV)/bin/python run.py prepare "$$dataset" || exit;; \
	esac; \
	[ -d "$$data" ] || { printf '%s\n' "error: DATASET=$$dataset: found no such folder, expected digits, cifar10 or a folder \
	with train and test in it"; exit 2; }; \
	train=$$data; [ ! -d "$$data/train" ] || train=$$data/train; \
	for name in val valid validation; do [ ! -d "$$data/$$name" ] || valid=$$data/$$name; done; set -x; \
	$(VENV)/bin/python run.py --train_path "$$train" --test_path "$$data/test" $${valid:+--valid_path "$$valid"} \
		$(if $(MODEL),--model_arch $(call quote,MODEL)) $(if $(EPOCHS),--num_epoch $(call quote,EPOCHS)) $(SETTINGS)

# Some tests write names with umlauts, which Python 3.6 cannot where no locale is set.
test: export LANG := $(or $(LANG),C.UTF-8)
test: environment $(CONVERTERS) $(KERNEL)
	@$(VENV)/bin/python -m pytest tests -n 2 --dist loadfile

guide: environment $(CONVERTERS)
	@$(VENV)/bin/python tests/docs/run_docs.py $(call quoted_words,PAGES)

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

evaluate: environment
	@$(VENV)/bin/python run.py evaluate $(if $(MODEL),--model_arch $(call quote,MODEL))

predict: environment
	@$(VENV)/bin/python run.py predict $(call quote,IMAGES) $(if $(MODEL),--model_arch $(call quote,MODEL))

convert: environment $(CONVERTERS)
	@$(VENV)/bin/python -m convert $(if $(MODEL),--model_arch $(call quote,MODEL))

chaos: environment
	@$(VENV)/bin/python tests/helpers/chaos.py
	@$(VENV)/bin/python -m pytest tests/test_mutations.py --hypothesis-profile=long

bench: environment
	@$(VENV)/bin/python tests/bench/benchmark.py $(if $(QUICK),--quick)
	@$(if $(QUICK),,$(VENV)/bin/python tests/bench/cluster_benchmark.py)

figures: environment
	@$(VENV)/bin/python docs/figures/make_figures.py

# Only a complete environment becomes the one used last.
environment: python $(INSTALLED) $(CUDA)
	@echo $(VERSION) > .venv/last

python:
	@printf '%s\n' "Python $(VERSION) with TensorFlow $(TENSORFLOW): "$(call quote,BASE_PYTHON)

moved:
	@echo "$(VENV) was made in another folder, and its scripts hold that path: it is made again"

# `installed` is written last, so that an interrupted installation is repeated.
$(INSTALLED): requirements.txt constraints/$(VERSION).txt $(MOVED)
	@echo "Installing TensorFlow $(TENSORFLOW) and what it needs into $(VENV), once; this takes one to four minutes:"
	@$(call quote,BASE_PYTHON) -m venv $(if $(MOVED),--clear) $(VENV)
	@$(if $(PIP),$(INSTALL) $(PIP))
	@$(INSTALL) --requirement requirements.txt --constraint constraints/$(VERSION).txt
	@found=$$($(VENV)/bin/python -c "import cv2" 2>&1) || { echo "error: OpenCV cannot be loaded: $$(echo "$$found" | tail -n 1); \
	for libgthread, on Debian and Ubuntu: sudo apt-get install libglib2.0-0"; exit 2; }
	@cd ./$(VENV) && pwd -P > installed

$(CONVERTERS): $(INSTALLED) convert/requirements.txt
	@echo "Installing the converters into $(VENV), once:"
	@$(INSTALL) --requirement convert/requirements.txt --constraint constraints/$(VERSION).txt
	@touch $@

$(VENV)/installed-cuda: $(INSTALLED)
	@echo "Installing CUDA's libraries into $(VENV), once; this downloads 2.8 GB:"
	@$(INSTALL) "tensorflow[and-cuda]==$(TENSORFLOW)" --constraint constraints/$(VERSION).txt
	@touch $@

$(KERNEL): $(INSTALLED) docs/requirements.txt
	@echo "Installing Jupyter's kernel into $(VENV), once, for the test of docs/notebook.ipynb:"
	@$(INSTALL) --requirement docs/requirements.txt --constraint constraints/$(VERSION).txt
	@touch $@

# CUDA's libraries are pinned without being installed: pip lists them in a line, "Would install NAME-VERSION ...".
ADD_CUDA = .venv/constraints/bin/python -m pip install --dry-run "tensorflow[and-cuda]==$(TENSORFLOW)" | \
	sed -n 's/^Would install //p' | tr ' ' '\n' | sed 's/-\([^-]*\)$$/==\1/' >> constraints/$(VERSION).txt

# Pin all packages that the three requirements.txt and GPU=1 pull in, for one Python.
constraints:
	rm -rf .venv/constraints
	$(call quote,BASE_PYTHON) -m venv .venv/constraints
	$(if $(PIP),.venv/constraints/bin/python -m pip install --quiet $(PIP))
	.venv/constraints/bin/python -m pip install --quiet --requirement requirements.txt \
		--requirement convert/requirements.txt --requirement docs/requirements.txt
	echo "# Generated by: make constraints PYTHON=python$(VERSION)" > constraints/$(VERSION).txt
	.venv/constraints/bin/python -m pip freeze --all --exclude pip >> constraints/$(VERSION).txt
	$(if $(PIP),,$(ADD_CUDA))
	rm -rf .venv/constraints

clean:
	rm -rf .venv
