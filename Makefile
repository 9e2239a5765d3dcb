# Two commands do everything on a fresh machine: `make demo` and `make test`.
# They need Python >= 3.11, make and the package index; nothing else may be installed beforehand.

PYTHON ?= python3
VENV ?= .venv
SEEDS ?= 10000
HOURS ?= 2
EXAMPLES ?= 200
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Tests start hundreds of processes; without what Python has compiled, each compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo dev test model seeds simulation style types lint check contract contract-fuzz coverage-of-contract format bench bench-guard faults faults-nightly soak recovery upgrade-rehearsal restore-rehearsal lock clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 24

install: $(STAMP) ## Install everything into .venv, every package checked by its hash.

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## Index the standard library through a kill -9 and an emptied Redis, to the end.
	$(BIN)/python -m workers.demo

dev: $(STAMP) ## Start everything on this machine under one supervisor.
	$(BIN)/orchestrator dev

test: $(STAMP) ## Run the tests and the short fault runs, in three processes: one strikes, one waits, one computes.
	$(BIN)/python -m pytest --numprocesses=3 -m "not bench"

model: $(STAMP) ## Compare the core with the reference interpreter on 20,000 random programs, each under every single crash.
	$(BIN)/python -m tests.model.campaign --programs 20000 --processes 2

style: $(STAMP) ## Formatting, lint, import layers.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo

types: $(STAMP) ## Types.
	$(BIN)/mypy

lint: style types ## Formatting, lint, import layers, types.

check: lint ## What `lint` finds, and tree hygiene.
	$(BIN)/python -m pytest -q tests/architecture

seeds: $(STAMP) ## Play SEEDS histories of a whole installation, with faults, in simulated time.
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --processes 2

simulation: seeds ## Play SEEDS histories, and find every mutant.
	$(BIN)/python -m tests.simulation --mutants --seeds 2000

contract: $(STAMP) ## Test the HTTP API: of a server of its own, or of the one at URL=http://... (KEY=its root key, ONLY=of these names).
	$(if $(URL),CONTRACT_URL=$(URL) CONTRACT_KEY=$(KEY)) $(BIN)/python -m pytest --numprocesses=2 -m "not fault and not bench" $(if $(ONLY),-k "$(ONLY)") tests/contract

contract-fuzz: $(STAMP) ## Draw EXAMPLES requests for each operation from the OpenAPI document; goes on where it was cut off, SEED=N repeats a run.
	$(BIN)/python -m tests.contract.long_fuzzing --examples $(EXAMPLES) $(if $(SEED),--seed $(SEED))

coverage-of-contract: $(STAMP) ## Say which tests cover which section of the contract.
	$(BIN)/python -m tests.contract_coverage

format: $(STAMP) ## Format and fix what can be fixed.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure speed, against other engines in the same run; writes build/bench.json.
	$(BIN)/python -m tests.benchmarks

bench-guard: $(STAMP) ## Fail when the engine has lost speed against DBOS, measured in the same run.
	$(BIN)/python -m tests.benchmarks.guard

faults: $(STAMP) ## Kill, flush and restart real processes under load, with negative controls.
	$(BIN)/python -m pytest -m fault tests/faults tests/soak

faults-nightly: $(STAMP) ## Strike an installation for HOURS, with the faults that SEED draws; goes on where it was cut off.
	$(BIN)/python -m tests.faults.nightly --hours $(HOURS) $(if $(SEED),--seed $(SEED))

soak: $(STAMP) ## Hold a steady load for HOURS, with Flower attached; plot memory, rows, connections and keys into build/.
	$(BIN)/python -m tests.soak --hours $(HOURS)

recovery: $(STAMP) ## Kill 200 workers that hold steps, and empty Redis; measure when work goes on.
	$(BIN)/python -m tests.faults.recovery --kills 200

upgrade-rehearsal: $(STAMP) ## Upgrade from REF (by default the newest commit with another schema) and roll back, under load.
	$(BIN)/python -m tests.faults.upgrade $(if $(REF),--ref $(REF))

restore-rehearsal: $(STAMP) ## Back up under load, lose some time, restore to a moment, and go on.
	$(BIN)/python -m tests.faults.restore

lock: $(STAMP) ## Pin all dependencies anew, with hashes.
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --all-extras --upgrade pyproject.toml -o requirements.lock

clean: ## Remove what builds and runs have left here.
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis $(VENV)
