# Conclave's few commands. `make demo` and `make test` find or install whatever they need
# (see scripts/setup) and say so; the first build compiles wasmtime and takes minutes.

# Everything builds the whole workspace, of which Cargo then compiles each dependency only once.
CARGO ?= cargo

.PHONY: help
help: ## say what there is
	@sed -n 's/^\([a-z]*\):.*## /make \1 \t/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: demo
demo: setup ## three nodes on this machine elect, fail over and hand over before your eyes
	$(CARGO) build --workspace --bin conclave
	$(or $(CARGO_TARGET_DIR),target)/debug/conclave demo

.PHONY: test
test: tools ## all tests, those against real etcd servers and browsers included
	$(CARGO) test --workspace --no-fail-fast

.PHONY: bench
bench: etcd ## what operators wait for, measured on a release build; BENCH=--help for more
	$(CARGO) run --release -p conclave-tests --bin bench -- $(BENCH)

.PHONY: languages
languages: ## one policy in Rust, JavaScript, Python and C: built, tested, measured
	examples/languages/run

.PHONY: chaos
chaos: etcd ## random faults against real processes, judged; CHAOS="--faults 1000 --out DIR", or --help
	$(CARGO) run --release -p conclave-tests --bin chaos -- $(CHAOS)

.PHONY: mutate
mutate: setup ## put each deliberate bug into a copy of the tree and show that it is caught
	scripts/mutate $(MUTATE)

.PHONY: simulate
simulate: setup ## a hundred thousand more schedules of the simulator; SIM=--help for more
	$(CARGO) run --release -p conclave-sim -- run --from 100000 $(SIM)

.PHONY: fuzz
fuzz: setup ## bad input from fuzzers, a minute for each way in; FUZZ="3600 config" for others
	fuzz/run $(FUZZ)

.PHONY: lint
lint: setup ## formatting, clippy, and whether the committed policies match their sources
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	plugins/check

.PHONY: doc
doc: setup ## the API documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

.PHONY: policies
policies: ## rebuild the committed first-party policies from their sources
	plugins/build

.PHONY: interface
interface: ## write docs/interface.md, the policy interface's reference, from the comments in wit/
	$(CARGO) run --quiet -p conclave-reference -- wit docs/interface.md

.PHONY: ci
ci: ## everything that the project's CI checks
	bash .ci/run

.PHONY: setup
setup:
	@scripts/setup

.PHONY: etcd
etcd:
	@scripts/setup etcd

.PHONY: tools
tools:
	@scripts/setup tests
