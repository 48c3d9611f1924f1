# The ways to build, run and check Tidegate. Each sets up first what the machine lacks (scripts/setup).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The checkers that scripts/setup built; recipes only.
TOOLS := target/tools/bin
PYTHON := $(CURDIR)/target/venv/bin/python
ROWS ?= 10000000
PAUSE ?= 10s
ROUNDS ?= 6
export TIDEGATE_TEST_PYTHON := $(PYTHON)

.PHONY: help up demo bench bench-stream bench-failover bench-micro test test-versions torture fuzz lint fmt clean setup-run setup-test setup-versions setup-fuzz setup-bench test-rust test-python lint-rust lint-proto

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: setup-run ## A local primary, two replicas and a broker, until Ctrl-C
	@echo 'building tidegate (a few minutes the first time)'
	cargo run --bin tidegate -- dev

demo: setup-run ## A tour: read-your-writes under lag, while a replica dies, and over a failover
	@echo 'building tidegate (a few minutes the first time)'
	cargo run --bin tidegate -- demo

BENCH ?= full
bench: setup-bench ## Direct PostgreSQL, PgBouncer and a broker side by side, most of an hour (BENCH=quick: some minutes)
	@echo 'building tidegate for release (several minutes the first time)'
	cargo build --release --bin tidegate
	cargo bench --quiet --bench micro -- 'route/.*/16$$'
	target/release/tidegate bench compare $(if $(filter quick,$(BENCH)),--quick)

bench-stream: setup-run ## A long result through the broker: rows/s, and its memory (ROWS=10000000 PAUSE=10s)
	@echo 'building tidegate for release (several minutes the first time)'
	cargo run --release --bin tidegate -- bench stream --rows $(ROWS) --pause $(PAUSE)

bench-failover: setup-run ## How long writes wait for a failover, and whether any is lost (ROUNDS=6)
	@echo 'building tidegate for release (several minutes the first time)'
	cargo run --release --bin tidegate -- bench failover --rounds $(ROUNDS)

bench-micro: setup-run ## What every request passes, alone: the choice of a host, the slot table, statements, rows
	@echo 'building tidegate for release (several minutes the first time)'
	cargo bench --bench micro

# The same random cases each time: what turns red here is the change's own doing. `cargo test` by hand draws new ones.
test: export PROPTEST_RNG_SEED ?= 1
test: lint test-python test-rust ## Everything that must hold: lint, and all tests

test-versions: setup-versions ## The integration tests, and torture, on PostgreSQL 15, 17 and 18
	scripts/test-versions

TORTURE_SECONDS ?= 120
TORTURE_SEED ?= 1
# Without PG, the PostgreSQL that everything else uses.
PG ?=
torture: $(if $(PG),setup-versions,setup-run) ## Sessions against a nemesis, judged by a checker (TORTURE_SECONDS=120 TORTURE_SEED=1 PG=18)
	@echo 'building tidegate (a few minutes the first time)'
	$(if $(PG),TIDEGATE_PG_BIN=$$(scripts/setup postgres-folder $(PG)) && export TIDEGATE_PG_BIN &&) \
		TORTURE_SECONDS=$(TORTURE_SECONDS) TORTURE_SEED=$(TORTURE_SEED) cargo test --quiet --test torture -- every_promise_is_kept

FUZZ_SECONDS ?= 60
fuzz: setup-fuzz ## Each fuzz target for FUZZ_SECONDS (60); fails if one finds something
	@scripts/fuzz run $(FUZZ_SECONDS)

lint: lint-rust lint-proto ## Format, clippy, dependencies, the API's rules

fmt: setup-test ## Format the code and the API
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml
	if [ -d scripts/tools/node_modules ]; then scripts/tools/node_modules/.bin/buf format -w; fi

clean: ## Remove what was built
	cargo clean
	rm -rf scripts/tools/node_modules

setup-run:
	@scripts/setup run

setup-test:
	@scripts/setup test

setup-versions:
	@scripts/setup versions

setup-fuzz:
	@scripts/setup fuzz

setup-bench:
	@scripts/setup bench

lint-rust: setup-test
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --features tidegate/fuzzing --lib --bins --tests --bench micro --quiet -- -D warnings
	$(TOOLS)/cargo-deny --log-level error check bans licenses sources
	$(TOOLS)/cargo-machete

lint-proto: setup-test
	if [ -f scripts/tools/package.json ]; then npm run --prefix scripts/tools --silent lint; fi

# The test against a real broker is started by the Rust tests, which have one.
test-python: setup-test
	if [ -f clients/python/pyproject.toml ]; then \
		$(PYTHON) clients/python/generate --check; \
		cd clients/python && $(PYTHON) -m mypy && $(PYTHON) -m pytest -q; \
	fi

test-rust: setup-test
	cargo test --workspace
