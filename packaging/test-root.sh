#!/bin/sh
# Puts a minimal Debian with systemd into a directory, for the tests that boot one.
#
#   test-root.sh DIR
#
# Exit 0: it is there; 3: not available here (no root, no Debian, no mirror).
set -eu

dir=${1:?"usage: test-root.sh DIR"}

say() { printf 'test-root: %s\n' "$*" >&2; }

[ ! -e "$dir/.complete" ] || exit 0
[ "$(id -u)" = 0 ] || { say 'needs root; the tests that boot a Debian are skipped'; exit 3; }
command -v debootstrap >/dev/null || { say 'there is no debootstrap; the tests that boot a Debian are skipped'; exit 3; }
# shellcheck disable=SC2016 # apt expands it
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -E '/debian/?$' | head -n 1)
[ -n "$mirror" ] || { say 'apt here has no Debian mirror; the tests that boot a Debian are skipped'; exit 3; }
rm -rf "$dir"
mkdir -p "$dir"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,curl,ca-certificates bookworm "$dir" "$mirror" >"$log" 2>&1; then
    tail -n 3 "$log" >&2
    rm -rf "$dir"
    say 'a Debian cannot be made here; the tests that boot one are skipped'
    exit 3
fi
rm -rf "$dir"/var/cache/apt/archives/*.deb
touch "$dir/.complete"
