# copymatch: everything a person types starts here. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

export COPYMATCH_LOCAL ?= $(CURDIR)/.local
export CARGO_TARGET_DIR ?= $(CURDIR)/target
ifneq ($(PG_CONFIG),)
export PG_MAJOR ?= $(shell "$(PG_CONFIG)" --version | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')
endif
export PG_MAJOR ?= 15
export SHORT GPU PG_CONFIG PG_BINDINGS DESTDIR TRAIN_PYTHON TRAIN_DATA TRAIN_CHAIN BENCHMARK MODEL
# ONNX Runtime's Linux wheels would otherwise report the models that they run.
export ORT_DISABLE_TELEMETRY := 1

PYTHON_ENV := $(COPYMATCH_LOCAL)/venv/bin/python
# What the matrix set up a moment ago is tested as it is (AS_SET_UP=yes), without another look
# whether it is to be compiled.
SETUP := $(if $(AS_SET_UP),,setup)
# Any command after this sees the private server as its default one.
WITH_SERVER := scripts/cluster.sh start; export COPYMATCH_DSN="$$(scripts/cluster.sh dsn)";

.PHONY: help setup demo test torture bench lint attack fmt psql start stop status install clean distclean train \
	train-smoke train-test eval eval-strangers calibrate-verification eval-model eval-foreign eval-baselines \
	bare-root matrix check-versions package package-try sbom fuzz test-fast

help: ## list these targets
	@awk 'BEGIN { FS = ":.*## "; print "copymatch: image copy detection inside PostgreSQL\n" } \
		/^[a-z%-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\n  Settings: PG_MAJOR=14…18 (15), PG_CONFIG=program (of Debian),'
	@printf ' COPYMATCH_LOCAL=folder (.local), CARGO_TARGET_DIR=folder (target)\n'
	@benches="$$({ ls benches/*.py crates/*/benches/*.rs 2>/dev/null || true; } \
		| sed -E 's#.*/([^/]+)\.(py|rs)$$#bench-\1#' | sort -u | tr '\n' ' ')"; \
		[ -z "$$benches" ] || printf '  Benchmarks: %s\n' "$$benches"

setup: ## build and install into a private PostgreSQL below .local, start it
	@scripts/setup.sh

demo: $(SETUP) ## find edited photographs' originals with copy_match; writes an HTML page
	@scripts/photographs.sh
	@$(WITH_SERVER) exec $(PYTHON_ENV) demo/demo.py --check $(ARGS)

test: $(SETUP) ## run all tests (T=name: those whose name contains it; T="tests/a.py": this file; T=--crates)
	@scripts/photographs.sh
	@scripts/node.sh
	@$(WITH_SERVER) exec $(PYTHON_ENV) scripts/run_tests.py $(T)

test-fast: $(SETUP) ## the crates' tests and the core of those against the server (aim: two minutes on two cores)
	@scripts/photographs.sh
	@$(WITH_SERVER) exec $(PYTHON_ENV) scripts/run_tests.py --fast

torture: setup ## kills, power loss, full disk, replicas, cancels, endurance, want of memory (20 minutes; SHORT=1: five)
	@scripts/photographs.sh
	@$(WITH_SERVER) exec scripts/torture.sh

bench: setup ## run every benchmark (make bench-NAME: one of them)
	@for name in $$({ ls benches/*.py crates/*/benches/*.rs 2>/dev/null || true; } \
		| sed -E 's#.*/([^/]+)\.(py|rs)$$#\1#' | sort -u); do $(MAKE) "bench-$$name"; done

bench-%: setup
	@scripts/photographs.sh
	@$(WITH_SERVER) if [ -e benches/$*.py ]; then exec $(PYTHON_ENV) benches/$*.py $(ARGS); fi; \
		bench="$$({ ls crates/*/benches/$*.rs 2>/dev/null || true; } | head -1)"; \
		if [ -z "$$bench" ]; then \
			echo "no benchmark '$*': neither benches/$*.py nor crates/*/benches/$*.rs" >&2; exit 2; fi; \
		package="$${bench#crates/}"; exec cargo bench --package "$${package%%/*}" --bench $* -- $(ARGS)

lint: ## length of lines, formatting, clippy, licences, shell, Python, SQL scripts' search paths, Dockerfiles
	@scripts/lint.sh

attack: setup ## hostile arguments, headers, pictures, index files, networks, for minutes (ARGS="--seconds 60 calls")
	@$(WITH_SERVER) exec $(PYTHON_ENV) scripts/attack.py $(ARGS)

fuzz: ## every fuzz target of the crates, SECONDS each (60; T="decode text": only these), from seeds of our own
	@scripts/tools.sh && exec scripts/fuzz.sh "$(or $(SECONDS),60)" $(T)

fmt: ## format Rust and Python
	@scripts/python.sh lint
	@cargo fmt --all
	@$(dir $(PYTHON_ENV))ruff format --quiet .
	@$(dir $(PYTHON_ENV))ruff check --quiet --fix-only --exit-zero .

psql: setup ## psql on the private server, database copymatch
	@scripts/cluster.sh psql

start: ## start the private server
	@scripts/cluster.sh start

stop: ## stop the private server
	@scripts/cluster.sh stop

status: ## is the private server running, and where
	@scripts/cluster.sh status

install: ## install into the system's PostgreSQL (PG_CONFIG=path: another one; GPU=1: with CUDA)
	@scripts/packages.sh && scripts/tools.sh && scripts/build.sh --system

package: ## a Debian package for PG_MAJOR below target/debian, checked by lintian
	@scripts/packages.sh && scripts/tools.sh && scripts/package.sh

package-try: ## install that package into a bare Debian below /var/tmp, search with it, remove it (needs root)
	@BARE_ROOT=$${BARE_ROOT:-/var/tmp/copymatch-package-$(PG_MAJOR)} \
		exec scripts/bare-root.sh try "$$(scripts/package.sh path)"

sbom: ## the release's bill of materials (CycloneDX), below target/sbom
	@scripts/sbom.sh

train-smoke: ## the training recipe, every part once on 300 pictures
	@scripts/train.sh smoke

train-test: ## the training package's tests (PyTorch)
	@scripts/train.sh test

train: ## train a model: pictures, fit, export, background, calibration (hours)
	@scripts/train.sh train

eval: setup ## the built-in model on a detection benchmark inside PostgreSQL, with its curve (BENCHMARK=folder)
	@$(WITH_SERVER) exec $(PYTHON_ENV) scripts/evaluate.py "$${BENCHMARK:-../shared/bench/detection}" \
		--picture "$(COPYMATCH_LOCAL)/precision-recall.svg" $(ARGS)

eval-strangers: setup ## pictures of one kind (receipts, charts, maps …): strangers taken for copies, copies found
	@scripts/photographs.sh
	@$(WITH_SERVER) exec $(PYTHON_ENV) scripts/eval_strangers.py $(ARGS)

calibrate-verification: setup ## weights and thresholds of verification (PICTURES=folder of judged ones, ARGS=--write)
	@scripts/photographs.sh
	@$(WITH_SERVER) exec $(PYTHON_ENV) train/calibrate_verification.py "$(PICTURES)" $(ARGS)

eval-model: ## the default model on the detection benchmark: ONNX Runtime, then inside PostgreSQL; both must agree
	@scripts/train.sh eval

eval-foreign: ## the default model on held-out pictures and foreign sources (TRAIN_MIRROR=folder, MODEL=folder)
	@scripts/train.sh validate

eval-baselines: ## PDQ and SSCD beside the default model, ONNX Runtime alone (BENCHMARK=folder, MODEL=folder)
	@scripts/train.sh baselines

bare-root: ## the Docker images' steps, by script, on a bare Debian below /var/tmp (needs root)
	@scripts/bare-root.sh

matrix: ## all tests on each of VERSIONS="17 18 16 14"; writes docs/majors.md (needs root; ROOTS=no: not; STEPS=)
	@ROOTS="$(ROOTS)" STEPS="$(STEPS)" exec python3 scripts/matrix.py $(or $(VERSIONS),17 18 16 14)

check-versions: ## compile for PostgreSQL 14 to 18, installed or not
	@scripts/check-versions.sh

clean: ## stop the private server and remove .local
	@scripts/clean.sh

distclean: clean ## and cargo's target folder
	@rm -rf "$(CARGO_TARGET_DIR)"
