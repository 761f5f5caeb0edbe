#!/usr/bin/env bash
# Compiles the extension and installs it into the private server (--system: into the system's PostgreSQL, or the one
# that PG_CONFIG names). Every file is written beside its target and renamed over it: a backend that has the old library
# mapped keeps it, a crash in between leaves the old file.
#
#   build.sh             compile, install into the private server
#   build.sh --configure only tell pgrx where PostgreSQL is, for a plain cargo build or clippy
#   build.sh --system    compile, install into PostgreSQL proper (needs root where that does)
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$ROOT/scripts/bindings.sh"
prepare_local
mode=${1:-}

version=$(sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" "$ROOT/copymatch.control")
[ -n "$version" ] || die "copymatch.control names no default_version"
library=$CARGO_TARGET_DIR/release/libcopymatch.so
schema=$CARGO_TARGET_DIR/release/copymatch--$version-pg$PG_MAJOR.sql

# pgrx asks this folder which pg_config belongs to which version; only the one that is built for stands there, since
# another that is gone by now would end the build. .cargo/config.toml names the default version's folder, so that a
# plain `cargo clippy` finds it as well.
export PGRX_HOME=$ROOT/target/pgrx
if [ "$PG_MAJOR" != 15 ]; then PGRX_HOME=$PGRX_HOME/$PG_MAJOR; fi
[ -x "$SYSTEM_PG_CONFIG" ] || die "no pg_config at $SYSTEM_PG_CONFIG"
configuration=$(printf '[configs]\npg%s = "%s"' "$PG_MAJOR" "$SYSTEM_PG_CONFIG")
if [ "$(cat "$PGRX_HOME/config.toml" 2>/dev/null)" != "$configuration" ]; then
    mkdir -p "$PGRX_HOME"
    printf '%s\n' "$configuration" >"$PGRX_HOME/config.toml"
fi

[ "$mode" != --configure ] || exit 0

bindings_come_from "${PG_BINDINGS:-headers}" --release
if [ "${PG_BINDINGS:-}" = pgrx ]; then use_pgrx_bindings link; fi
before=$(stat -c %Y "$library" 2>/dev/null || true)
# Cargo's own progress and errors pass; cargo-pgrx's chatter, which it always colours, does not.
(cd "$ROOT" && "$TOOLS/bin/cargo-pgrx" pgrx schema "pg$PG_MAJOR" --release --out "$schema" 2>&1) |
    sed -u -e 's/\x1b\[[0-9;]*m//g' -e '/^ *\(Using\|Building\|Discovered\|Writing\|Finished\) /d' -e '/^ *$/d' ||
    die "the extension did not compile"
# The program that the embedding service runs networks in: no part of PostgreSQL, the same for every version of it.
(cd "$ROOT" && cargo build --quiet --release --package encoder-process) || die "copymatch-encoder did not compile"
[ -s "$schema" ] || die "cargo pgrx wrote no SQL"
if [ "$before" != "$(stat -c %Y "$library")" ]; then say "compiled $(basename "$library")"; fi
flavour=onnxruntime
[ -z "${GPU:-}" ] || flavour=onnxruntime-gpu
"$ROOT/scripts/runtime.sh"

if [ "$mode" = --system ]; then
    pkglib=$("$SYSTEM_PG_CONFIG" --pkglibdir)
    share=$("$SYSTEM_PG_CONFIG" --sharedir)
    run=()
    if [ ! -w "$pkglib" ] || [ ! -w "$share/extension" ]; then run=(as_root); fi
else
    "$ROOT/scripts/server.sh"
    pkglib=$("$PG_BIN/pg_config" --pkglibdir)
    share=$("$PG_BIN/pg_config" --sharedir)
    run=()
fi
pkglib=${DESTDIR:-}$pkglib
share=${DESTDIR:-}$share

changed=
put() { # put MODE SOURCE TARGET: nothing where they are the same
    if cmp -s "$2" "$3"; then return; fi
    "${run[@]}" mkdir -p "$(dirname "$3")"
    "${run[@]}" install -m "$1" "$2" "$3.new.$$"
    "${run[@]}" mv -f "$3.new.$$" "$3"
    changed=yes
}
for file in "$LOCAL/$flavour"/*; do
    case $file in
        *.so*) put 755 "$file" "$pkglib/copymatch/${file##*/}" ;;
        *) put 644 "$file" "$pkglib/copymatch/${file##*/}" ;;
    esac
done
put 755 "$CARGO_TARGET_DIR/release/copymatch-encoder" "$pkglib/copymatch/copymatch-encoder"
put 755 "$library" "$pkglib/copymatch.so"
put 644 "$schema" "$share/extension/copymatch--$version.sql"
for upgrade in "$ROOT"/sql/upgrades/*--*.sql; do
    path=${upgrade##*/}
    path=${path%.sql}
    script=$CARGO_TARGET_DIR/release/copymatch--$path.sql
    "$PYTHON" "$ROOT/scripts/upgrade_sql.py" "${path%--*}" "${path#*--}" >"$script"
    put 644 "$script" "$share/extension/${script##*/}"
done
# What earlier versions installed, for the tests of the upgrade.
if [ "$mode" != --system ]; then
    for old in "$ROOT"/sql/history/*.sql; do put 644 "$old" "$share/extension/${old##*/}"; done
fi
put 644 "$ROOT/copymatch.control" "$share/extension/copymatch.control"
# What makes copymatch and pgvector one: an extension of its own in the same library.
adopted=$(sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" "$ROOT/copymatch_pgvector.control")
put 644 "$ROOT/sql/copymatch_pgvector.sql" "$share/extension/copymatch_pgvector--$adopted.sql"
put 644 "$ROOT/copymatch_pgvector.control" "$share/extension/copymatch_pgvector.control"

if [ -n "$changed" ]; then
    say "installed into $pkglib"
    if [ "$mode" != --system ]; then "$ROOT/scripts/cluster.sh" reload-library; fi
fi
