#!/bin/sh
# Installs what building (`setup.sh run`), packaging (`dist`), testing (`test`) or measuring (`bench`) needs, as far as it is missing.
# Debian and Ubuntu; elsewhere it says what is needed and goes on. Enables no service.
set -eu

what=${1:-run}

say() { printf 'setup: %s\n' "$*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        say "this needs root: $*"
        exit 1
    fi
}

missing=''
need() { # PROGRAM-OR-FILE PACKAGE
    has "$1" || [ -e "$1" ] || missing="$missing $2"
}

need cc build-essential
need make build-essential
need curl curl
need /etc/ssl/certs/ca-certificates.crt ca-certificates
need git git
need objcopy binutils
need zstd zstd
need protoc protobuf-compiler
# etcd's interface definitions import the ones that this package brings.
need /usr/include/google/protobuf/descriptor.proto libprotobuf-dev
if [ "$what" = test ]; then
    need strace strace
    need shellcheck shellcheck
    need debootstrap debootstrap
    need python3 python3
    python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
    need systemd-nspawn systemd-container
    need systemd-analyze systemd
fi

if [ "$what" = bench ]; then
    need zip zip
    need openssl openssl
    need rclone rclone
fi

if [ -n "$missing" ]; then
    if has apt-get; then
        say "installing$missing"
        as_root apt-get update -q >/dev/null
        # shellcheck disable=SC2086 # a list of packages
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null
    else
        say "not Debian or Ubuntu; please install what these packages have:$missing"
    fi
fi

# The oldest Rust that this builds with, from Cargo.toml.
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
newest() { printf '%s\n%s\n' "$1" "$2" | sort -V | tail -n 1; }
present() { has rustc && rustc --version | cut -d ' ' -f 2 || echo 0; }
if [ "$(newest "$wanted" "$(present)")" = "$wanted" ] && [ "$(present)" != "$wanted" ]; then
    say "installing Rust through rustup (found $(present), need $wanted)"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --profile minimal -c clippy -c rustfmt
fi

if [ "$what" = dist ] && ! [ -x target/tools/bin/cargo-deb ]; then
    say "installing cargo-deb into target/tools"
    cargo install --locked --quiet --root target/tools cargo-deb
fi
