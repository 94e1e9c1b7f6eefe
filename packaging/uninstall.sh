#!/bin/sh
# Removes what install.sh installed. The data stays unless a person says otherwise.
#
#   quorate-uninstall.sh            stops and removes quorate; asks, on a terminal, whether etcd's data goes too
#   quorate-uninstall.sh --yes      … the data goes without asking; snapshots, token and certificates stay
#   quorate-uninstall.sh --purge    … everything goes: snapshots, token, certificates, configuration, the user. Asks; with
#                                   --yes it does not
#   quorate-uninstall.sh --keep     … the data stays, without asking
#
# QUORATE_DATA_DIR names the data directory if the configuration does not. Without a terminal nothing is asked, and the data stays.
# Exit codes: 0 done; 1 failed; 2 usage; 4 refused to protect data.
set -eu

unit=quorate-server.service
etc=/etc/quorate
systemd_dir=${INSTALL_QUORATE_SYSTEMD_DIR:-/etc/systemd/system}

say() { printf 'uninstall: %s\n' "$*" >&2; }
fail() { # EXIT-CODE WHAT NEXT
    printf 'uninstall: %s\n' "$2" >&2
    [ $# -lt 3 ] || printf '  next: %s\n' "$3" >&2
    exit "$1"
}
has() { command -v "$1" >/dev/null 2>&1; }

yes='' purge='' keep=''
for argument in "$@"; do
    case $argument in
        --yes) yes=1 ;;
        --purge) purge=1 ;;
        --keep) keep=1 ;;
        -h | --help)
            sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
            exit 0
            ;;
        *) fail 2 "unknown argument $argument" "$0 --help" ;;
    esac
done
[ -z "$keep" ] || [ -z "$purge$yes" ] || fail 2 "--keep and --yes or --purge exclude each other"
[ "$(id -u)" = 0 ] || fail 1 "this needs root; nothing was removed" "sudo $0"

bin_dir=${INSTALL_QUORATE_BIN_DIR:-}
if [ -z "$bin_dir" ]; then
    here=$(cd "$(dirname "$0")" && pwd)
    for bin_dir in "$here" /usr/local/bin /opt/quorate/bin; do
        [ ! -x "$bin_dir/quorate" ] || break
    done
fi
share=$(dirname "$bin_dir")/share

# ---- Where the data is, while quorate is still installed

# Known for certain, or not touched: the wrong directory must never be emptied.
data=${QUORATE_DATA_DIR:-}
is_certain=$data
snapshots=''
if [ -x "$bin_dir/quorate" ] && config=$("$bin_dir/quorate" server --print-config 2>/dev/null); then
    value_of() { # KEY
        printf '%s\n' "$config" | sed -n "s/^$1: '\(.*\)'  # .*/\1/p; s/^$1: \([^'~][^']*\)  # .*/\1/p" | sed "s/''/'/g"
    }
    snapshots=$(value_of etcd-snapshot-dir)
    if [ -z "$data" ]; then
        data=$(value_of data-dir)
        is_certain=$data
    fi
fi
# The service may have other settings than the files.
if [ -z "${QUORATE_DATA_DIR:-}" ] && grep -qs -e '--data-dir' -e 'QUORATE_DATA_DIR' "$systemd_dir/$unit" "$systemd_dir/$unit.d"/*.conf \
    /etc/default/quorate-server /etc/sysconfig/quorate-server "$etc/server.env"; then
    is_certain=
fi
data=${data:-/var/lib/quorate}

# ---- Stop, and take away what runs

if [ -d /run/systemd/system ] && has systemctl && systemctl cat "$unit" >/dev/null 2>&1; then
    # Also one that is just starting, or waiting to be started again.
    say "stopping it"
    systemctl stop "$unit" || fail 1 "it does not stop; nothing was removed" "systemctl status quorate-server"
fi
if [ -S "$data/server/quorate.sock" ] && [ -x "$bin_dir/quorate" ]; then
    code=0
    "$bin_dir/quorate" status --data-dir "$data" >/dev/null 2>&1 || code=$?
    [ "$code" = 6 ] || fail 4 "a quorate server still runs on $data; nothing was removed" "stop it first"
fi
[ ! -d /run/systemd/system ] || systemctl --quiet disable "$unit" 2>/dev/null || true
rm -f "$systemd_dir/$unit" "$bin_dir/quorate" \
    "$share/bash-completion/completions/quorate" "$share/zsh/site-functions/_quorate" \
    "$share/fish/vendor_completions.d/quorate.fish" "$share/doc/quorate/config.yaml.example" \
    "$share/man/man1/quorate.1" "$share"/man/man1/quorate-*.1
rmdir "$share/doc/quorate" 2>/dev/null || true
[ ! -d /run/systemd/system ] || systemctl daemon-reload
say "quorate is removed"

# ---- The data

ask() { # QUESTION
    [ -z "$yes" ] || return 0
    [ -t 0 ] && [ -t 2 ] || return 1
    printf '%s [y/N] ' "$1" >&2
    read -r answer || answer=
    [ "$answer" = y ] || [ "$answer" = yes ]
}

finish() {
    rm -f "$bin_dir/quorate-uninstall.sh"
    exit 0
}

# Only what quorate itself unpacked: 64 hexadecimal digits.
remove_unpacked() {
    for payload in "$data"/data/*; do
        case ${payload##*/} in
            *[!0-9a-f]*) ;;
            ????????????????????????????????????????????????????????????????) rm -rf "$payload" ;;
        esac
    done
    rmdir "$data/data" 2>/dev/null || true
}
# What lies elsewhere stays, and is said to.
stays_elsewhere() {
    if [ -L "$data/server/db/etcd" ] || mountpoint -q "$data/server/db/etcd" 2>/dev/null; then
        fail 4 "$data/server/db/etcd is a link or a mount point; no data was removed" "empty what it leads to by hand"
    fi
    case $snapshots in
        '' | "$data"/*) ;;
        *) say "the snapshots in $snapshots stay" ;;
    esac
}

purged=''
if [ -n "$keep" ]; then
    say "the data stays in $data"
elif [ -z "$is_certain" ] && [ -n "$yes$purge" ]; then
    fail 4 "cannot determine where the data is (the configuration is invalid, or the service uses another one); no data was removed" \
        "run this again with QUORATE_DATA_DIR=/where/it/is, if quorate-uninstall.sh is still there, or remove it by hand"
elif [ ! -d "$data/server" ]; then
    say "there is no data in $data"
elif ! [ -f "$data/server/lock" ] && ! [ -f "$data/server/cluster.json" ] && ! [ -f "$data/server/token" ]; then
    fail 4 "$data/server does not look like quorate's; it was left alone" "remove it by hand"
elif [ -n "$purge" ]; then
    if ask "Remove everything in $data: etcd's data, all snapshots, the token and the keys?"; then
        stays_elsewhere
        rm -rf "$data/server"
        remove_unpacked
        rmdir "$data" 2>/dev/null || say "$data holds other things too and stays"
        say "the data, the snapshots in it and the token are removed"
        purged=1
    else
        say "the data, the snapshots and the token stay in $data"
    fi
elif [ -n "$is_certain" ] && ask "Remove etcd's data in $data? Snapshots, token and certificates stay."; then
    stays_elsewhere
    rm -rf "$data"/server/db/etcd "$data"/server/db/etcd-old-* "$data"/server/db/restore
    rm -f "$data"/server/cluster.json "$data"/server/child.json "$data"/server/lock "$data"/server/quorate.sock \
        "$data"/server/db/reset-flag "$data"/server/db/state.db
    remove_unpacked
    say "etcd's data is removed; snapshots, token and certificates stay in $data/server"
else
    say "the data stays in $data; a later installation goes on with it"
fi
if [ -n "$purge" ] && { [ -n "$purged" ] || [ ! -d "$data/server" ]; } && ask "Remove the configuration in $etc and the user quorate?"; then
    rm -rf "$etc"
    if getent passwd quorate >/dev/null && has userdel; then
        userdel quorate || say "the user quorate could not be removed"
    fi
else
    say "the configuration stays in $etc"
fi
finish
