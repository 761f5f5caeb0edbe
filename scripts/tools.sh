#!/usr/bin/env bash
# cargo-pgrx, pinned. It compiles the extension and writes its SQL.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

command -v cargo >/dev/null || die "no cargo: install a Rust toolchain (1.95 or newer) with rustup, then run this again"
rustc_version=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n' 1.95 "$rustc_version" | sort -V | head -1)" != 1.95 ]; then
    die "rustc is $rustc_version; copymatch needs 1.95 or newer (rustup update)"
fi

# What was compiled on a newer Debian does not start on an older one, and cargo knows nothing of it: a target folder
# that moved (a mounted folder, a copied clone) is compiled anew.
# shellcheck source=/dev/null
here=$(. /etc/os-release && printf '%s' "$ID ${VERSION_ID:-${VERSION_CODENAME:-}}")
there=$(cat "$CARGO_TARGET_DIR/.built-on" 2>/dev/null || true)
if [ -z "$there" ] && [ -e "$TOOLS/bin/cargo-pgrx" ] && ! "$TOOLS/bin/cargo-pgrx" pgrx --version >/dev/null 2>&1; then
    there="another system"
fi
if [ -n "$there" ] && [ "$there" != "$here" ]; then
    say "what is in $CARGO_TARGET_DIR was compiled on $there, and this is $here: it is compiled anew"
    rm -rf "$CARGO_TARGET_DIR"/{debug,release,tools,tools-build}
fi
mkdir -p "$CARGO_TARGET_DIR"
printf '%s\n' "$here" >"$CARGO_TARGET_DIR/.built-on"

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
