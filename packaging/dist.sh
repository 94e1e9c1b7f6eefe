#!/bin/sh
# Makes what is handed out, from an executable: an archive, a Debian package, and their checksums.
#
#   dist.sh EXECUTABLE DIR
#
# The same executable gives the same bytes: times are SOURCE_DATE_EPOCH, owners are root, orders are sorted.
set -eu

executable=${1:?"usage: dist.sh EXECUTABLE DIR"}
out=${2:?"usage: dist.sh EXECUTABLE DIR"}
cd "$(dirname "$0")/.."

say() { printf 'dist: %s\n' "$*" >&2; }

: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || echo 1735689600)}"
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
umask 022

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
case $(uname -m) in
    x86_64) machine=amd64 ;;
    aarch64) machine=arm64 ;;
    *) machine=$(uname -m) ;;
esac

# cargo-deb takes its files from here; Cargo.toml lists them.
stage=target/dist/stage
rm -rf "$stage"
mkdir -p "$stage" "$out"
cp "$executable" "$stage/quorate"
strip "$stage/quorate"
chmod 755 "$stage/quorate"
for shell in bash zsh fish; do
    "$stage/quorate" completion "$shell" >"$stage/quorate.$shell"
done
"$stage/quorate" man "$stage/man"
sed 's|/usr/local/bin/quorate|/usr/bin/quorate|' systemd/quorate-server.service >"$stage/quorate-server.service"
# The package makes the user, see packaging/debian/postinst.
sed 's/^# etcd-user: quorate$/etcd-user: quorate/' config.yaml.example >"$stage/config.yaml"

name=quorate-$version-linux-$machine
tree=$stage/$name
mkdir "$tree"
cp "$stage/quorate" config.yaml.example README.md LICENSE systemd/quorate-server.service packaging/install.sh packaging/uninstall.sh "$tree/"
cp -r docs "$tree/docs"
tar --mode=u=rwX,go=rX --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=ustar -C "$stage" -cf - "$name" |
    gzip -n -9 >"$out/$name.tar.gz"

package=quorate_${version}_$machine.deb
PATH=$PWD/target/tools/bin:$PATH cargo deb --no-build --no-strip --quiet --output "$out/$package"

(cd "$out" && sha256sum "$name.tar.gz" "$package" >SHA256SUMS)
say "$(cd "$out" && du -h "$name.tar.gz" "$package" | tr "\n\t" "  ")"
