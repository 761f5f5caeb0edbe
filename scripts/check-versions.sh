#!/usr/bin/env bash
# Compiles the extension (cargo check, warnings are errors) for every PostgreSQL that it supports, installed or not.
# Where a version's headers are here, pgrx makes its bindings from them as always; for the others the bindings serve
# that pgrx-pg-sys carries for its own documentation. Those are of a version's first releases and of 64-bit Linux:
# enough to find what a version lacks or names otherwise, not to run.
#
#   check-versions.sh [VERSION…]   default 14 15 16 17 18
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$ROOT/scripts/bindings.sh"
cd "$ROOT"
# Warnings of our own crates end it; cargo caps those of others, and repeats ours for what it has checked before.
check() { # check VERSION: in the environment given
    local said
    if ! said=$(cargo check --quiet --no-default-features --features "pg$1" 2>&1) || [ -n "$said" ]; then
        printf '%s\n' "$said" >&2
        die "the extension does not compile cleanly for PostgreSQL $1"
    fi
}

if [ $# -eq 0 ]; then set -- 14 15 16 17 18; fi
for version; do
    pg_config=/usr/lib/postgresql/$version/bin/pg_config
    if [ -x "$pg_config" ] && [ -e "$("$pg_config" --includedir-server)/postgres.h" ]; then
        say "PostgreSQL $version, by its headers"
        PG_MAJOR=$version bindings_come_from headers
        PGRX_PG_CONFIG_PATH=$pg_config check "$version"
    else
        say "PostgreSQL $version, by pgrx's bindings"
        PG_MAJOR=$version bindings_come_from pgrx
        (use_pgrx_bindings check && check "$version")
    fi
done
