#!/bin/sh
# Checks the dependency tree against deny.toml: licences, sources, banned crates; known faults too where their list can be
# had. Installs cargo-deny under target/tools if it is missing.
set -eu

cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/bin:$PATH"

if ! command -v cargo-deny >/dev/null 2>&1; then
    cargo install --locked --quiet --root target/tools cargo-deny
fi
cargo deny --locked check --hide-inclusion-graph licenses bans sources
# The list of advisories lives in a repository of its own, which not every machine reaches.
if cargo deny --locked fetch db >/dev/null 2>&1; then
    cargo deny --locked check advisories
else
    echo 'check-dependencies: SKIPPED advisories: their list cannot be fetched here' >&2
fi
