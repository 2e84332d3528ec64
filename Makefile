CARGO ?= cargo

# Without it the software driver complains on every start; nothing is written there.
XDG_RUNTIME_DIR ?= $(CURDIR)/target
export XDG_RUNTIME_DIR

.PHONY: demo test lint doc bench wasm driver

# The whole loop in a made-up world: a model writes, people compare, a reward model learns what they
# like, and the writer is improved against it.
demo: driver
	$(CARGO) run --release --example quickstart

# Everything that continuous integration checks.
test: driver lint doc wasm
	$(CARGO) test --workspace

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

bench: driver
	$(CARGO) bench

# The library also builds for browsers; skipped where the target cannot be had.
wasm:
	@if rustup target list --installed 2>/dev/null | grep -qx wasm32-unknown-unknown \
		|| rustup target add wasm32-unknown-unknown >/dev/null 2>&1; then \
		set -x; $(CARGO) check --target wasm32-unknown-unknown --lib; \
	else \
		echo "skipped: the wasm32-unknown-unknown target is not installed"; \
	fi

driver:
	@sh scripts/ensure-driver.sh
