#!/bin/sh
# build-deb.sh [--version VERSION] [--no-build | --offline] [OUTPUT_DIR]
# Builds the Debian package from this tree: OUTPUT_DIR/scorpio_VERSION_ARCH.deb (default target/debian).
# Needs cargo and dpkg-deb. --no-build packs the release binaries that are there; --offline builds without asking any
# network, from the crates that build-source.sh packed or that are here anyway.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
build=yes
offline=
out=
while [ $# -gt 0 ]; do
    case $1 in
    --version) version=$2; shift ;;
    --no-build) build=no ;;
    --offline) offline=--offline ;;
    -*) echo "build-deb.sh: unknown option $1" >&2; exit 2 ;;
    *) out=$1 ;;
    esac
    shift
done
target=${CARGO_TARGET_DIR:-target}
out=${out:-$target/debian}
arch=$(dpkg --print-architecture)

[ "$build" = no ] || cargo build --release --locked $offline --bins

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
# The package's directories are everybody's to read, whatever the umask here.
umask 022
chmod 755 "$stage"

install -D -m 755 "$target/release/scorpiod" "$stage/usr/libexec/scorpio/scorpiod"
install -D -m 755 "$target/release/scorpioctl" "$stage/usr/bin/scorpioctl"
strip --strip-unneeded "$stage/usr/libexec/scorpio/scorpiod" "$stage/usr/bin/scorpioctl"

install -D -m 644 -t "$stage/usr/lib/systemd/system" systemd/scorpio.service systemd/scorpio.socket
install -D -m 644 systemd/scorpio.sysusers.conf "$stage/usr/lib/sysusers.d/scorpio.conf"
install -D -m 644 -t "$stage/usr/lib/systemd/catalog" systemd/scorpio.catalog
install -D -m 644 -t "$stage/usr/share/polkit-1/actions" polkit/org.scorpio.policy
install -D -m 644 -t "$stage/usr/share/polkit-1/rules.d" polkit/50-scorpio.rules
install -D -m 644 packaging/scorpio.toml "$stage/etc/scorpio/scorpio.toml"

doc=$stage/usr/share/doc/scorpio
install -D -m 644 packaging/debian/copyright "$doc/copyright"
install -d "$doc"
sed "s/@VERSION@/$version/" packaging/debian/changelog | gzip -9n >"$doc/changelog.gz"
install -m 644 -t "$doc" README.md
man=$stage/usr/share/man
install -d "$man/man1" "$man/man5" "$man/man8"
"$target/release/scorpioctl" gen-man "$man/man1"
"$target/release/scorpiod" gen-man "$man/man8"
mv "$man/man8/scorpio.toml.5" "$man/man5/"
find "$man" -type f -exec gzip -9n {} +
completions=$stage/usr/share
"$target/release/scorpioctl" completions bash |
    install -D -m 644 /dev/stdin "$completions/bash-completion/completions/scorpioctl"
"$target/release/scorpioctl" completions zsh |
    install -D -m 644 /dev/stdin "$completions/zsh/vendor-completions/_scorpioctl"
"$target/release/scorpioctl" completions fish |
    install -D -m 644 /dev/stdin "$completions/fish/vendor_completions.d/scorpioctl.fish"

install -d "$stage/DEBIAN"
size=$(du -sk --exclude=DEBIAN "$stage" | cut -f1)
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@SIZE@/$size/" packaging/debian/control >"$stage/DEBIAN/control"
echo /etc/scorpio/scorpio.toml >"$stage/DEBIAN/conffiles"
install -m 755 -t "$stage/DEBIAN" packaging/debian/postinst packaging/debian/prerm packaging/debian/postrm
(cd "$stage" && find etc usr -type f -exec md5sum {} + | LC_ALL=C sort -k 2 >DEBIAN/md5sums)

mkdir -p "$out"
dpkg-deb --root-owner-group --build "$stage" "$out/scorpio_${version}_$arch.deb"
