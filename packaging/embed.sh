#!/bin/sh
# Puts an etcd and its etcdctl into a finished quorate executable, or replaces those that are in it.
#
#   embed.sh EXECUTABLE ETCD-DIRECTORY [LEVEL]
#
# They become a section of the ELF file, which is never loaded: quorate reads it from its own file when it needs an etcd (see
# src/etcd/payload.rs, which describes the format). The executable is replaced by a rename, so it may be running. LEVEL is zstd's:
# 3 by default, 19 for a release. The same input gives the same bytes. OBJCOPY names another one, for an executable of another
# machine type.
set -eu

executable=${1:?"usage: embed.sh EXECUTABLE ETCD-DIRECTORY [LEVEL]"}
dir=${2:?"usage: embed.sh EXECUTABLE ETCD-DIRECTORY [LEVEL]"}
level=${3:-3}
section=.quorate.etcd

work=$(mktemp -d)
new=$executable.new-$$
trap 'rm -rf "$work" "$new"' EXIT INT TERM

# One of another machine type does not run here.
version=$("$dir/etcd" --version 2>/dev/null | sed -n 's/^etcd Version: //p' | head -n 1) || true
digests=''
for program in etcd etcdctl; do
    zstd -q -f -T0 "-$level" -o "$work/$program.zst" "$dir/$program"
    digest=$(sha256sum "$dir/$program" | cut -d ' ' -f 1)
    digests=$digests$program$digest
    echo "file $program $(stat -L -c %s "$dir/$program") $digest $(stat -c %s "$work/$program.zst")" >>"$work/files"
done
{
    echo "quorate-etcd 1"
    echo "version ${version:-unknown}"
    echo "sha256 $(printf %s "$digests" | sha256sum | cut -d ' ' -f 1)"
    cat "$work/files"
    echo
    cat "$work/etcd.zst" "$work/etcdctl.zst"
} >"$work/section"

"${OBJCOPY:-objcopy}" --remove-section "$section" --add-section "$section=$work/section" \
    --set-section-flags "$section=noload,readonly" "$executable" "$new"
mv "$new" "$executable"
