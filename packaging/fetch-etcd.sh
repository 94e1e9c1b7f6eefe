#!/bin/sh
# Puts an etcd and an etcdctl (and an etcdutl, where there is one) into a directory, without installing anything or starting a service.
#
#   fetch-etcd.sh any DIR      a supported one, from wherever it is nearest
#   fetch-etcd.sh 3.5 DIR      one of that minor version
# In this order: PATH; this machine's packages; newer Debian suites from this machine's own mirror (Debian only);
# built from its Go modules (needs go); with QUORATE_ETCD_RELEASE=v3.x.y also the project's release archive, checked
# against the checksums published with it. Exit 0: both are in DIR; 3: not available here.
# shellcheck disable=SC2317 # the functions are called through done_with
set -eu

wanted=${1:?"usage: fetch-etcd.sh any|3.4|3.5|3.6|3.7 DIR"}
dir=${2:?"usage: fetch-etcd.sh any|3.4|3.5|3.6|3.7 DIR"}

say() { printf 'fetch-etcd: %s\n' "$*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

minor_of() { # BINARY
    "$1" --version 2>/dev/null | sed -n 's/^etcd Version: \([0-9]*\.[0-9]*\)\..*/\1/p'
}

suits() { # BINARY
    minor=$(minor_of "$1")
    case "$minor" in
        3.4 | 3.5 | 3.6 | 3.7) [ "$wanted" = any ] || [ "$wanted" = "$minor" ] ;;
        *) false ;;
    esac
}

take() { # ETCD ETCDCTL WHENCE
    suits "$1" && [ -x "$2" ] || return 1
    mkdir -p "$dir"
    cp "$1" "$dir/etcd.new" && cp "$2" "$dir/etcdctl.new"
    chmod 755 "$dir/etcd.new" "$dir/etcdctl.new"
    mv "$dir/etcd.new" "$dir/etcd" && mv "$dir/etcdctl.new" "$dir/etcdctl"
    # Versions before 3.5 have none.
    utility=$(dirname "$2")/etcdutl
    [ ! -x "$utility" ] || install -m 755 "$utility" "$dir/etcdutl"
    say "$("$dir/etcd" --version | head -n 1), from $3, in $dir"
}

if [ -x "$dir/etcd" ] && [ -x "$dir/etcdctl" ] && suits "$dir/etcd"; then
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

from_path() {
    has etcd && has etcdctl && take "$(command -v etcd)" "$(command -v etcdctl)" PATH
}

# Downloads and unpacks the two packages with whatever apt options are given.
from_packages() { # WHENCE APT-OPTION...
    whence=$1
    shift
    rm -rf "$work/deb" && mkdir -p "$work/deb"
    (cd "$work/deb" && apt-get "$@" download etcd-server etcd-client) >/dev/null 2>&1 || return 1
    for package in "$work"/deb/*.deb; do
        dpkg -x "$package" "$work/deb/x"
    done
    take "$work/deb/x/usr/bin/etcd" "$work/deb/x/usr/bin/etcdctl" "$whence"
}

from_this_distribution() {
    has apt-get && has dpkg && from_packages "this machine's packages"
}

# A newer suite, with apt's state in a directory of our own: nothing of this machine's apt changes.
from_suite() { # SUITE
    has apt-get && has dpkg || return 1
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || return 1
    # shellcheck disable=SC2016 # apt expands it
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -E '/debian/?$' | head -n 1)
    [ -n "$mirror" ] || return 1
    apt=$work/apt-$1
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$mirror" "$1" >"$apt/sources.list"
    set -- "$1" -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "Dir::Etc::sourcelist=$apt/sources.list" \
        -o Dir::Etc::sourceparts=/dev/null -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false -o APT::Sandbox::User=root -o Debug::NoLocking=1
    suite=$1
    shift
    apt-get "$@" update >/dev/null 2>&1 || return 1
    from_packages "Debian $suite" "$@"
}

from_go() { # MINOR
    has go || return 1
    mkdir -p "$work/go" "$work/bin"
    (
        # Joined, because errexit does not hold on the left side of `||`.
        cd "$work/go" &&
            printf 'module quorate.invalid/etcd\n\ngo 1.24\n' >go.mod &&
            version=$(go list -m -versions go.etcd.io/etcd/server/v3 | tr ' ' '\n' | grep -E "^v$1\.[0-9]+\$" | sort -V | tail -n 1) &&
            [ -n "$version" ] &&
            go get "go.etcd.io/etcd/server/v3@$version" "go.etcd.io/etcd/etcdctl/v3@$version" \
                "go.etcd.io/etcd/etcdutl/v3@$version" &&
            go build -trimpath -ldflags '-s -w' -o "$work/bin/etcd" go.etcd.io/etcd/server/v3 &&
            go build -trimpath -ldflags '-s -w' -o "$work/bin/etcdctl" go.etcd.io/etcd/etcdctl/v3 &&
            go build -trimpath -ldflags '-s -w' -o "$work/bin/etcdutl" go.etcd.io/etcd/etcdutl/v3
    ) >"$work/go.log" 2>&1 || return 1
    take "$work/bin/etcd" "$work/bin/etcdctl" "its Go modules"
}

from_release() { # VERSION
    has curl || return 1
    case $(uname -m) in
        x86_64) machine=amd64 ;;
        aarch64) machine=arm64 ;;
        *) return 1 ;;
    esac
    base=https://github.com/etcd-io/etcd/releases/download/$1
    archive=etcd-$1-linux-$machine.tar.gz
    curl -fsSL --connect-timeout 10 --max-time 300 -o "$work/$archive" "$base/$archive" || return 1
    curl -fsSL --connect-timeout 10 --max-time 60 -o "$work/SHA256SUMS" "$base/SHA256SUMS" || return 1
    (cd "$work" && grep " $archive\$" SHA256SUMS | sha256sum -c -) >/dev/null || {
        say "the checksum of $archive is wrong"
        return 1
    }
    tar -xzf "$work/$archive" -C "$work"
    take "$work/${archive%.tar.gz}/etcd" "$work/${archive%.tar.gz}/etcdctl" "the release $1"
}

done_with() { "$@" && exit 0; return 0; }

[ -z "${QUORATE_ETCD_RELEASE:-}" ] || done_with from_release "$QUORATE_ETCD_RELEASE"
done_with from_path
case $wanted in
    # The newest suites first: this machine's own package may be an old one.
    any | 3.5)
        done_with from_suite forky
        done_with from_suite trixie
        done_with from_this_distribution
        ;;
    3.4)
        done_with from_this_distribution
        done_with from_suite bookworm
        ;;
esac
case $wanted in
    any) done_with from_go 3.6 ;;
    *) done_with from_go "$wanted" ;;
esac
say "etcd $wanted is not available here; install it, or set a release with QUORATE_ETCD_RELEASE=v3.x.y"
exit 3
