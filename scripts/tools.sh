#!/usr/bin/env bash
# cargo-pgrx, pinned. It compiles the extension and writes its SQL.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

command -v cargo >/dev/null || die "no cargo: install a Rust toolchain (1.95 or newer) with rustup, then run this again"
rustc_version=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n' 1.95 "$rustc_version" | sort -V | head -1)" != 1.95 ]; then
    die "rustc is $rustc_version; copymatch needs 1.95 or newer (rustup update)"
fi

is_pinned() { [ "$("$1" pgrx --version 2>/dev/null)" = "cargo-pgrx $PGRX_VERSION" ]; }

mkdir -p "$TOOLS/bin"
if is_pinned "$TOOLS/bin/cargo-pgrx"; then
    exit 0
fi
if found=$(command -v cargo-pgrx) && is_pinned "$found"; then
    ln -sf "$found" "$TOOLS/bin/cargo-pgrx"
    exit 0
fi
say "compiling cargo-pgrx $PGRX_VERSION (once, some minutes)"
# It only starts cargo and reads one section of a library: unoptimised it compiles in a third of the time and runs as
# fast. Its TLS features serve downloads of PostgreSQL, which never happen here, and would want OpenSSL's headers.
CARGO_TARGET_DIR=$CARGO_TARGET_DIR/tools-build CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug \
    --no-default-features --root "$TOOLS" "cargo-pgrx@=$PGRX_VERSION"
rm -rf "$CARGO_TARGET_DIR/tools-build"
