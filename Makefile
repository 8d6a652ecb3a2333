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

# Memory and devices without the databases, interpreted: what Miri knows of system calls bounds what it runs. Leaks are no findings: what a
# broken drive may still write to is leaked on purpose.
MIRI_TESTS := copy:: media::arena media::buffer media::copy media::crash media::device media::fault media::flights media::queue media::region media::segment media::slot media::word

.PHONY: miri
miri: ## Memory code under Miri (a nightly toolchain with miri and rust-src)
	@$(CARGO) +nightly miri --version >/dev/null 2>&1 || { \
		echo 'miri: not there; `rustup toolchain install nightly -c miri -c rust-src` brings it' >&2; exit 1; }
	MIRIFLAGS='-Zmiri-disable-isolation -Zmiri-ignore-leaks' $(CARGO) +nightly miri test --no-default-features --features media --lib -- $(MIRI_TESTS)

.PHONY: bench
bench: setup ## All benches
	$(CARGO) bench
