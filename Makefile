# quorate: `make run` starts a server under ./data, `make test` runs all tests. Each does all of its own set-up.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run build dist test lint bench soak proof fuzz setup setup-test matrix test-build embedded dist-test test-root moto clean

# rustup's own place, for a machine where it was installed a moment ago.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# Everything that is made lies under target/.
ETCDS := target/etcd
MINORS := 3.4 3.5 3.6 3.7
# The etcd that `make run` puts into the executable.
EMBED ?= $(ETCDS)/any
DATA ?= data
NOTES := $(abspath target/test-notes)
BUILD_TIME := target/test-build-time
# Tests mostly wait; more of them at a time than there are cores is right.
export RUST_TEST_THREADS ?= 6
# What may not be skipped for lack of it: etcd, embedded, moto, test-root, all. On CI each minor must be there.
ifdef CI
export QUORATE_TEST_REQUIRE ?= etcd
endif
# Seconds.
SOAK ?= 1800
SAVES ?= 1000
MUTANTS ?= 2000
FUZZ ?= 300

help: ## Show this
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

run: setup ## Build quickly, put an etcd inside and start a server under ./data
	packaging/fetch-etcd.sh any $(EMBED)
	cargo build --profile quick --locked
	packaging/embed.sh target/quick/quorate $(EMBED)
	exec target/quick/quorate server --data-dir $(DATA)

# No path of this machine gets into the executable, so that the same source gives the same bytes.
REMAP = $(CURDIR)=/quorate $(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo
SAME_BYTES = RUSTFLAGS='$(addprefix --remap-path-prefix=,$(REMAP))' CFLAGS='$(addprefix -ffile-prefix-map=,$(REMAP))'

build: setup ## Build the small and fast executable with an etcd inside: target/release/quorate
	packaging/fetch-etcd.sh any $(EMBED)
	QUORATE_COMMIT=$$(git rev-parse HEAD 2>/dev/null || echo unknown) $(SAME_BYTES) cargo build --release --locked
	packaging/embed.sh target/release/quorate $(EMBED) 19

dist: build ## Make the archive, the Debian package and their checksums: target/dist
	packaging/setup.sh dist
	packaging/dist.sh target/release/quorate target/dist

test: setup-test matrix embedded dist-test test-root moto ## Run all tests, on every etcd that is available here
	shellcheck packaging/*.sh packaging/debian/*
	rm -f $(NOTES)
	begun=$$(date +%s); status=0; \
	QUORATE_TEST_NOTES=$(NOTES) cargo test --locked --no-fail-fast --features fault-injection || status=$$?; \
	echo; echo "built in $$(cat $(BUILD_TIME)) s, tested in $$(( $$(date +%s) - begun )) s"; \
	echo 'slowest tests (ms):'; \
	{ grep -s '^time' $(NOTES) || true; } | cut -f 2,3 | sort -rn | sed -n 1,10p; \
	{ grep -s '^skipped' $(NOTES) || true; } | cut -f 2 | sort | uniq -c | sed 's/^/SKIPPED:/'; \
	exit $$status

lint: setup-test ## Format, words, clippy and documentation with warnings as errors, dependencies
	packaging/check-words.sh
	cargo fmt --check
	cargo clippy --locked --all-targets --features fault-injection -- -D warnings
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	packaging/check-dependencies.sh

bench: setup-test matrix ## Measure against a bare etcd, etcdctl, zip, openssl and rclone
	packaging/setup.sh bench
	$(SAME_BYTES) cargo bench --locked --bench launch --bench snapshot --bench restore --bench s3

soak: setup-test matrix embedded ## Run the tests again and again for SOAK seconds
	end=$$(( $$(date +%s) + $(SOAK) )); runs=0; \
	while [ $$(date +%s) -lt $$end ]; do \
	    cargo test --locked --features fault-injection --test it -q -- launch:: snapshot:: restore::; \
	    runs=$$((runs + 1)); echo "soak: $$runs runs without a failure"; \
	done

proof: setup-test matrix ## Try MUTANTS broken snapshots on real etcds; compare SAVES copied snapshots of each with what etcd sends
	QUORATE_PROOF_MUTANTS=$(MUTANTS) $(SAME_BYTES) cargo test --locked --release --features fault-injection --test it \
	    mutants_that_no_etcd_runs_on -- --ignored --nocapture
	QUORATE_SOAK_SAVES=$(SAVES) $(SAME_BYTES) cargo test --locked --release --features fault-injection --test it \
	    copies_are_what_etcd_has -- --ignored --nocapture --test-threads=1

fuzz: ## Feed the readers of databases, archives and logs, and the editor, with nonsense for FUZZ seconds each
	[ -x target/tools/bin/cargo-fuzz ] || cargo install --locked --root target/tools cargo-fuzz
	for reader in bolt archive edit log; do \
	    mkdir -p target/fuzz/corpus/$$reader; \
	    RUSTC_BOOTSTRAP=1 PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo fuzz run --sanitizer none --target-dir target/fuzz $$reader \
	        target/fuzz/corpus/$$reader fuzz/corpus/$$reader -- -max_total_time=$(FUZZ) -max_len=65536 -timeout=10; \
	done

setup:
	packaging/setup.sh run

setup-test:
	packaging/setup.sh test

# Tests skip etcd versions that are not available, and report that.
matrix:
	for minor in $(MINORS); do packaging/fetch-etcd.sh $$minor $(ETCDS)/$$minor || [ $$? = 3 ]; done

# The tests of an executable with an etcd inside need one; the others need one without.
embedded: matrix test-build
	mkdir -p target/embedded
	cp target/debug/quorate target/embedded/quorate
	etcd=$$(for minor in 3.5 $(MINORS); do [ -x $(ETCDS)/$$minor/etcd ] && echo $(ETCDS)/$$minor && break; done); \
	packaging/embed.sh target/embedded/quorate $$etcd

# Everything that the tests need from cargo, with the same settings as the tests: nothing is compiled twice.
test-build: setup-test
	begun=$$(date +%s); cargo test --locked --no-run --features fault-injection; \
	mkdir -p target; echo $$(( $$(date +%s) - begun )) >$(BUILD_TIME)

# What the tests install: as `make dist` makes it, with the executable that tests use.
dist-test: embedded
	packaging/setup.sh dist
	packaging/dist.sh target/embedded/quorate target/dist/test

# A small Debian that the tests boot; without it these tests are skipped and reported.
test-root:
	packaging/test-root.sh target/test-root || [ $$? = 3 ]

# A second S3 for the tests; without it these tests are skipped and reported.
moto:
	packaging/moto.sh target/tools/moto || [ $$? = 3 ]

clean: ## Remove what was built (not ./data)
	cargo clean
