#!/bin/sh
# Puts moto, a second implementation of S3, into a directory, for the tests that want one.
#
#   moto.sh DIR
#
# Exit 0: DIR/bin/moto_server is there; 3: not available here (no Python 3 with venv, no package index).
set -eu

dir=${1:?"usage: moto.sh DIR"}
version=5

say() { printf 'moto: %s\n' "$*" >&2; }

[ ! -e "$dir/.complete" ] || exit 0
command -v python3 >/dev/null || { say 'there is no python3; the tests with moto are skipped'; exit 3; }
rm -rf "$dir"
if ! python3 -m venv "$dir" >/dev/null 2>&1; then
    rm -rf "$dir"
    say 'python3 has no venv here (python3-venv); the tests with moto are skipped'
    exit 3
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "$dir/bin/pip" install --quiet --disable-pip-version-check "moto[s3,server]>=$version,<$((version + 1))" >"$log" 2>&1; then
    tail -n 3 "$log" >&2
    rm -rf "$dir"
    say 'moto cannot be installed; the tests with it are skipped'
    exit 3
fi
touch "$dir/.complete"
