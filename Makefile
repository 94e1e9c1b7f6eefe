# quorate: `make run` starts a server under ./data, `make test` runs all tests. Each does all of its own set-up.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run build test lint bench soak setup setup-test matrix embedded clean

# rustup's own place, for a machine where it was installed a moment ago.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# Everything that is made lies under target/.
ETCDS := target/etcd
# The etcd that is put into the executable.
EMBED ?= $(ETCDS)/any
DATA ?= data

help: ## Show this
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

run: build ## Build with an etcd inside and start a server under ./data
	exec target/release/quorate server --data-dir $(DATA)

build: setup ## Build the release executable with an etcd inside: target/release/quorate
	packaging/fetch-etcd.sh any $(EMBED)
	QUORATE_EMBED_ETCD=$(abspath $(EMBED)) cargo build --release --locked

setup:
	packaging/setup.sh run

setup-test:
	packaging/setup.sh test

clean: ## Remove what was built (not ./data)
	cargo clean
