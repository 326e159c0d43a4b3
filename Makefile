# Every target is a command of scripts/bootstrap, which says what it does: make help
PYTHON ?= python3
STACK ?= dev
ARGS ?=

COMMANDS := up preview refresh stop start destroy backup restore status env credentials client-env users setup \
	test test-unit test-faults lint format bench pin-images help

.DEFAULT_GOAL := help
.PHONY: $(COMMANDS)
.NOTPARALLEL:

export STACK

$(COMMANDS):
	@$(PYTHON) -m scripts.bootstrap $@ $(ARGS)
