#!/bin/sh
# Installs quorate on this machine: executable, systemd unit, configuration, completions, manual pages.
#
#   packaging/install.sh                                       from the archive or the clone that this script lies in
#   INSTALL_QUORATE_ARTIFACT=quorate-1.2.3-linux-amd64.tar.gz packaging/install.sh
#   curl -fsSL …/install.sh | INSTALL_QUORATE_RELEASES=https://… INSTALL_QUORATE_VERSION=1.2.3 sh -
#
# Run again it changes what is different, and restarts the service only then. Exit codes: 0 done; 1 failed, nothing of the
# running installation was replaced or the message says what; 2 the settings below make no sense; 5 what was named is not there.
#
#   INSTALL_QUORATE_ARTIFACT       an executable, an archive of `make dist`, or the https:// address of one
#   INSTALL_QUORATE_SHA256         its expected SHA-256; otherwise a file SHA256SUMS next to it is used. From an
#                                  address one of the two is needed
#   INSTALL_QUORATE_VERSION        the release to download if there is nothing else
#   INSTALL_QUORATE_RELEASES       the address below which releases lie as vVERSION/quorate-VERSION-linux-MACHINE.tar.gz
#   INSTALL_QUORATE_BIN_DIR        default /usr/local/bin, or /opt/quorate/bin where that is read-only
#   INSTALL_QUORATE_SYSTEMD_DIR    default /etc/systemd/system
#   INSTALL_QUORATE_EXEC           further arguments of `quorate server`; no secrets, every user of this machine can read them
#   INSTALL_QUORATE_SKIP_ENABLE    `true`: not started when the machine boots
#   INSTALL_QUORATE_SKIP_START     `true`: not started or restarted now
#   INSTALL_QUORATE_FORCE_RESTART  `true`: restarted although nothing has changed
#   QUORATE_…                      options of quorate; they are kept in /etc/quorate/config.yaml.d/90-install.yaml, which only root
#                                  can read, so that every command knows them. QUORATE_LOG is kept in /etc/quorate/server.env
#
# /etc/quorate/config.yaml is written if there is none, with `etcd-user: quorate`, and never touched again.
set -eu
umask 022

# All in one function, called in the last line: a script that was cut off on its way here does nothing.
main() {

unit=quorate-server.service
etc=/etc/quorate
user=quorate

say() { printf 'install: %s\n' "$*" >&2; }
fail() { # EXIT-CODE WHAT NEXT
    printf 'install: %s\n' "$2" >&2
    [ $# -lt 3 ] || printf '  next: %s\n' "$3" >&2
    exit "$1"
}
has() { command -v "$1" >/dev/null 2>&1; }
is_true() { case $1 in true | 1 | yes) true ;; '' | false | 0 | no) false ;; *) fail 2 "\`$1\` is neither true nor false" ;; esac; }

# Piped into a shell it lies nowhere, and what is in the working directory is not its own.
case $0 in
    *install.sh) here=$(cd "$(dirname "$0")" && pwd) ;;
    *) here= ;;
esac
skip_enable=${INSTALL_QUORATE_SKIP_ENABLE:-}
skip_start=${INSTALL_QUORATE_SKIP_START:-}
force_restart=${INSTALL_QUORATE_FORCE_RESTART:-}
systemd_dir=${INSTALL_QUORATE_SYSTEMD_DIR:-/etc/systemd/system}
exec_arguments=${INSTALL_QUORATE_EXEC:-}

[ $# = 0 ] || fail 2 "it takes no arguments, and \`$1\` is one; nothing was changed" "set the variables in its first lines instead"

work=$(mktemp -d)
# Until something is installed, what was made on the way is removed again.
trial=
made=
clean_up() {
    rm -rf "$work" ${trial:+"$trial"}
    # The deepest first, and only as long as they are empty.
    for dir in $made; do rmdir "$dir" 2>/dev/null || true; done
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# ---- What is wanted

for switch in "$skip_enable" "$skip_start" "$force_restart"; do
    is_true "$switch" || true
done
case $exec_arguments in
    *--token | *--token=* | *--token\ *)
        fail 2 "INSTALL_QUORATE_EXEC has a token in it, which every user of this machine could read in the unit" \
            "give it as QUORATE_TOKEN, or better as QUORATE_TOKEN_FILE"
        ;;
    *[!A-Za-z0-9\ ,.:/=_@+-]*)
        fail 2 "INSTALL_QUORATE_EXEC has other characters in it than letters, digits, spaces and , . : / = _ @ + -" \
            "put that option into $etc/config.yaml"
        ;;
esac
for variable in $(env | sed -n 's/^\(INSTALL_QUORATE_[A-Z0-9_]*\)=.*/\1/p'); do
    case $variable in
        INSTALL_QUORATE_ARTIFACT | INSTALL_QUORATE_SHA256 | INSTALL_QUORATE_VERSION | INSTALL_QUORATE_RELEASES | INSTALL_QUORATE_BIN_DIR | \
            INSTALL_QUORATE_SYSTEMD_DIR | INSTALL_QUORATE_EXEC | INSTALL_QUORATE_SKIP_ENABLE | INSTALL_QUORATE_SKIP_START | \
            INSTALL_QUORATE_FORCE_RESTART) ;;
        *) fail 2 "$variable means nothing to this script" "see the list in its first lines" ;;
    esac
done
for variable in QUORATE_NEW_CLUSTER QUORATE_CLUSTER_RESET QUORATE_CLUSTER_RESET_RESTORE_PATH; do
    if env | grep -q "^$variable=."; then
        fail 2 "$variable is for one start, and what is given here is kept for every start" "give it to quorate server on the command line, once"
    fi
done
[ -z "${QUORATE_CONFIG:-}" ] || fail 2 "QUORATE_CONFIG cannot be kept: the service reads $etc/config.yaml" "move the file there"
if command -v dpkg-query >/dev/null 2>&1 && [ "$(dpkg-query -W -f '${db:Status-Status}' quorate 2>/dev/null)" = installed ]; then
    fail 2 "the package quorate is installed, and what this script installs would hide it" \
        "upgrade the package instead, or remove it first: apt-get remove quorate"
fi

# Options given as variables are kept; those of builds and tests are not options. A line break cannot be kept.
env -0 | tr '\n\0' '\001\n' | sed -n '/^QUORATE_[A-Z0-9_]*=/p' |
    grep -Ev '^QUORATE_(EMBED_ETCD|COMMIT|ETCD_RELEASE|TEST_[A-Z_]*)=' | LC_ALL=C sort >"$work/variables" || true
if grep -q "$(printf '\001')" "$work/variables"; then
    fail 2 "a QUORATE_ variable has a line break in it" "put that option into $etc/config.yaml"
fi
sed -n '/^QUORATE_LOG=/{s/[\\"$`]/\\&/g;s/=/="/;s/$/"/;p;}' "$work/variables" >"$work/server.env"
# QUORATE_DATA_DIR=/srv/x → data-dir: '/srv/x'; etcd's settings are separated by white space in a variable, and a list in a file.
grep -Ev '^QUORATE_(LOG|CONFIG)=' "$work/variables" | sed "s/'/''/g" | awk -v q="'" '
    BEGIN { print "# Written by install.sh from the variables that it was given." }
    {
        at = index($0, "="); key = tolower(substr($0, 9, at - 9)); value = substr($0, at + 1)
        gsub("_", "-", key); sub(/^[ \t]+/, "", value); sub(/[ \t]+$/, "", value)
        if (key == "etcd-arg") { gsub(/[ \t]+/, q ", " q, value); print key ": [" q value q "]" } else print key ": " q value q
    }' >"$work/90-install.yaml" || true
case $(uname -m) in
    x86_64) machine=amd64 ;;
    aarch64) machine=arm64 ;;
    *) machine=$(uname -m) ;;
esac

is_writable() { # DIR, which may have to be made later
    there=$1
    while [ ! -e "$there" ]; do there=$(dirname "$there"); done
    [ -d "$there" ] && ( : >"$there/.quorate-install-$$" ) 2>/dev/null && rm -f "$there/.quorate-install-$$"
}
make_dir() { # DIR, removed again if nothing is installed
    there=$1
    while [ ! -e "$there" ]; do
        made="$made $there"
        there=$(dirname "$there")
    done
    mkdir -p "$1"
}
case ${INSTALL_QUORATE_BIN_DIR:-/} in
    /*[!A-Za-z0-9/._-]* | [!/]*) fail 2 "INSTALL_QUORATE_BIN_DIR must be an absolute path of plain characters, not $INSTALL_QUORATE_BIN_DIR" ;;
esac
case $systemd_dir in
    /*[!A-Za-z0-9/._-]* | [!/]*) fail 2 "INSTALL_QUORATE_SYSTEMD_DIR must be an absolute path of plain characters, not $systemd_dir" ;;
esac
if [ -n "${INSTALL_QUORATE_BIN_DIR:-}" ]; then
    bin_dir=$INSTALL_QUORATE_BIN_DIR
    is_writable "$bin_dir" || fail 1 "cannot write to $bin_dir; nothing was installed" "run this as root, or set another INSTALL_QUORATE_BIN_DIR"
else
    bin_dir=/usr/local/bin
    if ! is_writable "$bin_dir"; then
        bin_dir=/opt/quorate/bin
        is_writable "$bin_dir" || fail 1 "can write neither to /usr/local/bin nor to $bin_dir; nothing was installed" "run this as root"
        say "/usr/local/bin is read-only; installing into $bin_dir"
    fi
fi
is_writable "$systemd_dir" || fail 1 "cannot write to $systemd_dir; nothing was installed" "run this as root, or set INSTALL_QUORATE_SYSTEMD_DIR"
is_writable "$etc" || fail 1 "cannot write to $etc; nothing was installed" "run this as root"
# /usr/local/bin → /usr/local/share
share=$(dirname "$bin_dir")/share

# ---- Where it comes from

checksum_of() { sha256sum "$1" | cut -d ' ' -f 1; }

check() { # FILE CHECKSUMS-FILE-OR-NOTHING NAME
    wanted=${INSTALL_QUORATE_SHA256:-}
    if [ -z "$wanted" ] && [ -n "$2" ] && [ -e "$2" ]; then
        wanted=$(sed -n "s|^\([0-9a-f]\{64\}\) [ *]\(\./\)\{0,1\}$3\$|\1|p" "$2" | head -n 1)
        [ -n "$wanted" ] || fail 1 "$2 does not list $3; nothing was installed" "get both from the same release"
    fi
    [ -n "$wanted" ] || return 1
    [ "$(checksum_of "$1")" = "$wanted" ] ||
        fail 1 "the checksum of $3 is $(checksum_of "$1"), and should be $wanted; nothing was installed" "get it again; if that does not help, do not use it"
}

download() { # ADDRESS FILE
    has curl || fail 1 "curl is needed to download $1" "apt-get install curl"
    curl -fsSL --proto '=https,file' --connect-timeout 15 --retry 2 --max-time 900 -o "$2" "$1"
}

fetch() { # ADDRESS
    name=$(basename "$1")
    say "downloading $1"
    download "$1" "$work/$name" || fail 1 "cannot download $1; nothing was installed" \
        "check the network and proxies, or copy an archive here and set INSTALL_QUORATE_ARTIFACT to it"
    sums=
    if [ -z "${INSTALL_QUORATE_SHA256:-}" ]; then
        sums=$work/SHA256SUMS
        download "$(dirname "$1")/SHA256SUMS" "$sums" || fail 1 "cannot download the checksums of $1; nothing was installed" \
            "set INSTALL_QUORATE_SHA256 to what it should be"
    fi
    check "$work/$name" "$sums" "$name"
    artifact=$work/$name
}

artifact=${INSTALL_QUORATE_ARTIFACT:-}
case $artifact in
    '')
        if [ -n "$here" ] && [ -x "$here/quorate" ]; then
            artifact=$here/quorate
        elif [ -n "$here" ] && [ -x "$here/../target/release/quorate" ]; then
            artifact=$here/../target/release/quorate
        elif [ -n "${INSTALL_QUORATE_VERSION:-}" ]; then
            [ -n "${INSTALL_QUORATE_RELEASES:-}" ] ||
                fail 2 "there is no address to download release $INSTALL_QUORATE_VERSION from" \
                    "set INSTALL_QUORATE_RELEASES, or INSTALL_QUORATE_ARTIFACT to the address of an archive"
            fetch "$INSTALL_QUORATE_RELEASES/v$INSTALL_QUORATE_VERSION/quorate-$INSTALL_QUORATE_VERSION-linux-$machine.tar.gz"
        else
            fail 5 "there is no quorate next to this script, and none was specified" \
                "build one (make build), or set INSTALL_QUORATE_ARTIFACT to an archive or INSTALL_QUORATE_VERSION to a release"
        fi
        ;;
    https://* | file://*) fetch "$artifact" ;;
    http://*) fail 2 "$artifact would be downloaded without protection" "use https://" ;;
    *)
        [ -f "$artifact" ] || fail 5 "there is no file $artifact" "look for it"
        check "$artifact" "$(dirname "$artifact")/SHA256SUMS" "$(basename "$artifact")" || true
        ;;
esac

files=$work/files
mkdir "$files"
case $artifact in
    *.tar.gz | *.tgz)
        tar -xzf "$artifact" -C "$files" --strip-components=1 2>/dev/null ||
            fail 1 "$artifact is not an archive of quorate; nothing was installed" "get it again"
        ;;
    *)
        cp "$artifact" "$files/quorate"
        [ -z "$here" ] || for file in "$here/$unit" "$here/../systemd/$unit" "$here/config.yaml.example" \
            "$here/../config.yaml.example" "$here/uninstall.sh"; do
            [ ! -f "$file" ] || cp "$file" "$files/"
        done
        ;;
esac
for file in quorate "$unit" config.yaml.example uninstall.sh; do
    [ -f "$files/$file" ] || fail 1 "$artifact comes without $file; nothing was installed" "use an archive of make dist, or run this from the clone"
done
chmod 755 "$files/quorate"
# Where it will be, because nothing may be executed in some temporary directories.
make_dir "$bin_dir" || fail 1 "cannot make $bin_dir; nothing was installed" "see the line above"
trial=$bin_dir/.quorate-trial-$$
cp "$files/quorate" "$trial" || fail 1 "cannot write to $bin_dir; nothing was installed" "see the line above"
version=$("$trial" version 2>"$work/error") ||
    fail 1 "$artifact does not run on this machine: $(head -n 1 "$work/error"); nothing was installed" "get the one for $machine, for this C library"

# ---- What quorate says to it

# What an earlier run kept and this one does not name stays: a data-dir that is forgotten would be an empty cluster.
options=$etc/config.yaml.d/90-install.yaml
if [ -e "$options" ]; then
    sed -n 's/^\([a-z0-9-]*\): .*/\1/p' "$options" | while read -r key; do
        grep -q "^$key: " "$work/90-install.yaml" || grep "^$key: " "$options" >>"$work/90-install.yaml"
    done
fi
if [ ! -e "$etc/config.yaml" ]; then
    sed 's/^# etcd-user: quorate$/etcd-user: quorate/' "$files/config.yaml.example" >"$work/config.yaml"
fi
# What quorate would refuse later is refused now.
mkdir -p "$work/check/config.yaml.d"
if [ -e "$etc/config.yaml" ]; then cp "$etc/config.yaml" "$work/check/"; else cp "$work/config.yaml" "$work/check/"; fi
for file in "$etc"/config.yaml.d/*.yaml; do
    [ ! -e "$file" ] || cp "$file" "$work/check/config.yaml.d/"
done
cp "$work/90-install.yaml" "$work/check/config.yaml.d/90-install.yaml"
if ! getent passwd "$user" >/dev/null; then
    # It is made only if all of this is right. Until then another one stands for it.
    sed -i "s/^\(etcd-user: '\{0,1\}\)$user\('\{0,1\}\)$/\1nobody\2/" "$work"/check/config.yaml "$work"/check/config.yaml.d/*.yaml
fi
env -i PATH="$PATH" "$trial" server --print-config --config "$work/check/config.yaml" >/dev/null 2>"$work/error" || {
    sed "s|$work/check|$etc|" "$work/error" >&2
    fail 2 "quorate would not start with this configuration; nothing was installed" "fix it, and run this again"
}

# ---- Install

made=
changed=
# Whole or not at all, and only if it is different: the running one is never seen half written.
put() { # MODE FROM TO
    if [ -f "$3" ] && cmp -s "$2" "$3" && [ "$(stat -c %a "$3")" = "$1" ]; then
        return
    fi
    mkdir -p "$(dirname "$3")"
    rm -f "$3.new"
    if ! { (umask 077 && cp "$2" "$3.new") && chmod "$1" "$3.new" && mv -f "$3.new" "$3"; }; then
        rm -f "$3.new"
        fail 1 "cannot write $3" "see the line above; fix the cause, and run this again"
    fi
    changed="$changed $3"
}

if ! getent passwd "$user" >/dev/null; then
    if has useradd && useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"; then
        say "made the system user $user, which etcd runs as"
    else
        say "cannot make a user $user; etcd will run as root"
        [ ! -e "$work/config.yaml" ] || cp "$files/config.yaml.example" "$work/config.yaml"
    fi
fi

put 755 "$files/quorate" "$bin_dir/quorate"
restart_for=$changed
put 755 "$files/uninstall.sh" "$bin_dir/quorate-uninstall.sh"
restart_before=$changed
sed -e "s|/usr/local/bin/quorate server|$bin_dir/quorate server${exec_arguments:+ $exec_arguments}|" "$files/$unit" >"$work/$unit"
put 644 "$work/$unit" "$systemd_dir/$unit"

[ ! -s "$work/server.env" ] || put 600 "$work/server.env" "$etc/server.env"
[ "$(wc -l <"$work/90-install.yaml")" = 1 ] || put 600 "$work/90-install.yaml" "$options"

[ -e "$etc/config.yaml" ] || put 600 "$work/config.yaml" "$etc/config.yaml"
[ "$changed" = "$restart_before" ] || restart_for="$restart_for $changed"

put 644 "$files/config.yaml.example" "$share/doc/quorate/config.yaml.example"
for shell in bash:bash-completion/completions/quorate zsh:zsh/site-functions/_quorate fish:fish/vendor_completions.d/quorate.fish; do
    "$bin_dir/quorate" completion "${shell%%:*}" >"$work/completion"
    put 644 "$work/completion" "$share/${shell#*:}"
done
"$bin_dir/quorate" man "$work/man"
for page in "$work"/man/*.1; do
    put 644 "$page" "$share/man/man1/$(basename "$page")"
done

# Each file that matters, and how many of the others.
main=
others=0
for file in $changed; do
    case $file in
        "$share"/*) others=$((others + 1)) ;;
        *) main="$main${main:+, }$file" ;;
    esac
done
if [ -z "$changed" ]; then
    say "nothing has changed"
else
    [ -z "$main" ] || say "wrote $main"
    [ "$others" = 0 ] || say "wrote $others manual pages, completions and examples below $share"
fi
say "$version"

# ---- Start

if ! [ -d /run/systemd/system ]; then
    say "there is no systemd here, so nothing was started; run: $bin_dir/quorate server"
    exit 0
fi
[ "$(systemctl show -p NeedDaemonReload --value "$unit" 2>/dev/null)" != yes ] || restart_for="$restart_for unit"
systemctl daemon-reload
is_true "$skip_enable" || systemctl --quiet enable "$unit"
if is_true "$skip_start"; then
    say "not started, as asked; start it with: systemctl start quorate-server"
    exit 0
fi
state=$(systemctl show -p ActiveState --value "$unit")
pid=$(systemctl show -p MainPID --value "$unit")
# What runs may be older than what was installed last.
runs=$(stat -L -c %d:%i "/proc/$pid/exe" 2>/dev/null) || runs=
[ "$pid" = 0 ] || [ "$runs" = "$(stat -c %d:%i "$bin_dir/quorate")" ] || restart_for="$restart_for executable"
if [ "$state" = active ] || [ "$state" = activating ] || [ "$state" = reloading ]; then
    if [ -z "$restart_for" ] && [ "$state" != activating ] && ! is_true "$force_restart"; then
        say "it runs already, and goes on"
        exit 0
    fi
    say "restarting it"
    action=restart
else
    say "starting it; this returns when etcd is ready"
    action=start
fi
systemctl "$action" "$unit" || fail 1 "it was installed and does not start" "see why: journalctl -u quorate-server -e"
say "etcd is ready; see: $bin_dir/quorate status"
}

main "$@"
