#!/bin/sh
# build-source.sh [OUTPUT_DIR]
# Makes OUTPUT_DIR/scorpio-VERSION.tar.xz (default target/source): the last commit with the sources of all crates it is
# built from. Who unpacks it builds the package without a network: packaging/build-deb.sh --offline
# Needs git, cargo, xz and, for crates that are not here yet, the network.
set -eu
cd "$(dirname "$0")/.."

case ${1:-} in
-*) sed -n '2,5s/^# //p' "$0" >&2; exit 2 ;;
esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
out=${1:-${CARGO_TARGET_DIR:-target}/source}

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
tree=$stage/scorpio-$version
mkdir "$tree"
git archive HEAD | tar -C "$tree" -x
mkdir -p "$tree/.cargo"
# What cargo prints, unless it is told to be quiet, says that the crates are found in `vendor`; it belongs after what the project
# itself sets there.
(cd "$tree" && cargo vendor --locked vendor >>.cargo/config.toml)
# Who unpacks it has no crates but these.
(cd "$tree" && CARGO_HOME=$stage/cargo cargo metadata --offline --locked --format-version 1 >/dev/null)

mkdir -p "$out"
# The same commit gives the same bytes.
tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" -c "scorpio-$version" |
    xz -T 0 -2 >"$out/scorpio-$version.tar.xz.new"
mv "$out/scorpio-$version.tar.xz.new" "$out/scorpio-$version.tar.xz"
echo "$out/scorpio-$version.tar.xz"
