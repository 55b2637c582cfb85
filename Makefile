# The two commands to know: `make quickstart` and `make test`. Each sets up .venv first if it is missing.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
QUICKSTART := configs/quickstart.yaml
RAY_LOG := .test-cluster.log
TESTS := not slow
RERUNS := 0

# Where it is set, each of a job's ten processes would compile anew all that it imports: 15 s of CPU for a trainer.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-slow check format docs bench faults cluster-local cluster-down clean gpu-check

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup:  ## make .venv and install what constraints.txt pins
	@if $(MAKE) --question --no-print-directory $(INSTALLED); then echo "environment $(VENV): re-used"; \
	else $(MAKE) --no-print-directory $(INSTALLED); fi
	@$(MAKE) --no-print-directory --silent configs/schema.json

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "error: Python 3.10 or newer is needed: make PYTHON=python3.x")'
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "environment $(VENV): installing"
	@# Without --no-compile pip would compile tens of thousands of files, most of which no job imports.
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Editors that know YAML complete and check settings by this file, which the first lines of configs/*.yaml name.
configs/schema.json: $(wildcard supmer/config/*.py)
	@$(RUN) -c 'from supmer.jobs.config import JOB; JOB.main()' schema > $@

quickstart: setup  ## meta-train on text that is installed anyway, tune on a few-shot task, label three rows
	$(RUN) pipeline/metatrain.py --config $(QUICKSTART)
	$(RUN) pipeline/prompt_tune.py --config $(QUICKSTART)
	$(RUN) pipeline/predict.py --config $(QUICKSTART) --run runs/quickstart --input configs/quickstart_rows.jsonl --output runs/quickstart/labelled.jsonl
	@cat runs/quickstart/labelled.jsonl

# One Ray cluster at a time has room on a machine, and the tests that start one mostly wait: the others run beside them.
test: setup  ## the tests that are done within minutes, the main job from its command line included
	@$(RUN) -m pytest --durations=25 --reruns $(RERUNS) -r fER -m "cluster and ($(TESTS))" > $(RAY_LOG) 2>&1 & process=$$!; trap 'kill $$process 2> /dev/null' EXIT; trap 'exit 130' INT TERM; \
	echo "== tests without Ray (those with Ray run beside them and are shown when they end: $(RAY_LOG))"; \
	$(RUN) -m pytest --durations=25 -m "not cluster and ($(TESTS))"; without_ray=$$?; \
	echo "== tests with Ray"; \
	wait $$process; with_ray=$$?; cat $(RAY_LOG); \
	test $$without_ray -eq 0 -a $$with_ray -eq 0

test-slow: TESTS := slow
test-slow: test  ## the others: whole jobs, interrupted runs, several ranks; half an hour on two cores

check: setup  ## lint, formatting, types, known vulnerabilities of what is installed
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(RUN) .ci/audit.py

format: setup  ## mend what the linter can mend
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

docs: setup  ## the documentation as a site, in site/; links that lead nowhere are errors
	@$(RUN) -m mkdocs --version > /dev/null 2>&1 || $(RUN) -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet --strict

bench: setup  ## benchmarks; each prints one JSON object as its last line
	@set -e; for program in $(filter-out $(addprefix benchmarks/,hardware.py plain_preparation.py),$(wildcard benchmarks/*.py)); do echo "== $$program"; $(RUN) "$$program"; done

# Where a GPU is lent there may be no network and no .venv: GPU_PYTHON=python3 takes what is installed there.
GPU_PYTHON ?= $(RUN)
gpu-check:  ## equal numbers, no waiting, speed, memory as planned, on the GPU that is there (else tiny shapes on the CPU)
	@if test "$(GPU_PYTHON)" = "$(RUN)"; then $(MAKE) --no-print-directory setup; fi
	$(GPU_PYTHON) benchmarks/gpu.py

faults: setup  ## damaged files; runs through worker kills, lost machines, hangs must give the undisturbed result
	$(RUN) -m pytest tests/test_fuzzing.py --mutants 1000
	$(RUN) tests/faults/campaign.py

cluster-local: setup  ## an autoscaling Ray cluster on this machine, to submit jobs to
	$(RUN) cluster/local/local_cluster.py up

cluster-down: setup  ## end that cluster, all of it
	$(RUN) cluster/local/local_cluster.py down

clean:  ## remove the environment and caches (runs, stores and backbones stay)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
