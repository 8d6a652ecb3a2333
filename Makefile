# The usual errands. Everything builds with the release profile, so that RocksDB is compiled once for all of them; the
# first build takes some minutes. Set CARGO_TARGET_DIR to share what is built between clones.

CARGO ?= cargo
# nextest where it is installed: the same tests, each in a process of its own.
TEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo nextest run || echo test)

.DEFAULT_GOAL := help

.PHONY: help
help: ## Lists what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: setup
setup: ## Sees to the system packages that the build needs
	@tools/setup.sh

.PHONY: browser
browser: ## Sees to a Chromium, for the test of plan's page
	@tools/setup.sh --browser

.PHONY: demo
demo: setup ## An embedded server, a generated trace through real gRPC, and its bill
	$(CARGO) run --release --bin kvtier -- demo

.PHONY: build
build: setup ## The kvtier program
	$(CARGO) build --release --bin kvtier

.PHONY: test
test: setup ## All tests
	$(CARGO) $(TEST) --release --lib --bins --tests

.PHONY: lint
lint: setup ## Format, lints, and the client's half without RocksDB
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets -- -D warnings
	@if $(CARGO) tree --no-default-features -e normal --prefix none | grep -i rocksdb; then \
		echo 'lint: without the `server` feature the library must be free of RocksDB' >&2; exit 1; fi
	$(CARGO) check --release --no-default-features --lib

.PHONY: bench
bench: setup ## All benches
	$(CARGO) bench
