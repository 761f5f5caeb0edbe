#!/usr/bin/env bash
# The release's bill of materials, CycloneDX 1.5, by cargo-cyclonedx (pinned): target/sbom/copymatch.cdx.json.
# Cargo.lock counts as it is.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
out=$CARGO_TARGET_DIR/sbom

is_pinned() {
    [ "$("$TOOLS/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null)" = \
        "cargo-cyclonedx-cyclonedx $CYCLONEDX_VERSION" ]
}

if ! is_pinned; then
    say "compiling cargo-cyclonedx $CYCLONEDX_VERSION (once, two minutes)"
    CARGO_TARGET_DIR=$CARGO_TARGET_DIR/tools-build CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug \
        --root "$TOOLS" "cargo-cyclonedx@=$CYCLONEDX_VERSION"
    rm -rf "$CARGO_TARGET_DIR/tools-build"
fi

cd "$ROOT"
cargo metadata --locked --format-version=1 --no-deps >/dev/null || die "Cargo.lock is not what Cargo.toml asks for"
# It writes beside each Cargo.toml of the workspace; what the others hold is in ours. The commit's
# time makes it repeatable.
name=.sbom-$$
trap 'rm -f "$ROOT"/"$name".json "$ROOT"/crates/*/"$name".json' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0) CARGO_NET_OFFLINE=true \
    "$TOOLS/bin/cargo-cyclonedx" cyclonedx --quiet \
    --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu --no-build-deps --override-filename "$name"
mkdir -p "$out"
"$PYTHON" scripts/sbom.py "$name.json" "crates/encoder-process/$name.json" >"$out/copymatch.cdx.json.new"
mv "$out/copymatch.cdx.json.new" "$out/copymatch.cdx.json"
say "$out/copymatch.cdx.json"
