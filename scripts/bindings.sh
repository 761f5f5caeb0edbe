# shellcheck shell=bash
# Sourced after env.sh: compiling without a major's C headers, by the bindings that pgrx-pg-sys carries for its own
# documentation. They are of one minor release of each major, on 64-bit Linux.

# use_pgrx_bindings check: enough for cargo check. pgrx-pg-sys takes its own bindings under a condition that other
# crates understand otherwise: only it may see it.
#
# use_pgrx_bindings link: enough to run, for 14 alone, which no Debian has. What headers define as inline functions is
# taken from a build for 15: the functions that are used (slots, lists, the table access method's) and what they touch
# have the same layout in both. One of the others names a function that 14 has not; nothing calls it.
use_pgrx_bindings() {
    mkdir -p "$CARGO_TARGET_DIR"
    local wrapper=$CARGO_TARGET_DIR/rustc-docsrs linked='' found
    if [ "$1" = link ]; then
        [ "$PG_MAJOR" = 14 ] || die "PG_BINDINGS=pgrx serves PostgreSQL 14 alone; install the C headers of $PG_MAJOR"
        for found in "$CARGO_TARGET_DIR"/release/build/pgrx-pg-sys-*/out/pgrx-cshim-static-pg15.c; do
            linked=${found%/*}/libpgrx-cshim.a
        done
        [ -e "$linked" ] ||
            die "PG_BINDINGS=pgrx takes inline functions from a build for 15: run make setup without it first"
    fi
    cat >"$wrapper" <<WRAPPER
#!/bin/sh
case " \$* " in
    *" --crate-name pgrx_pg_sys "*) exec "\$@" --cfg docsrs ;;
    *" --crate-name copymatch "*" --crate-type cdylib "*)
        exec "\$@" ${linked:+-C "link-arg=$linked" -C link-arg=-Wl,--defsym=RmgrNotFound=0} ;;
    *) exec "\$@" ;;
esac
WRAPPER
    chmod 755 "$wrapper"
    export DOCS_RS=1 RUSTC_WRAPPER=$wrapper
}

# bindings_come_from SOURCE [PROFILE OPTION]: cargo does not notice when headers come or go, and would keep what it has.
bindings_come_from() {
    local note=$CARGO_TARGET_DIR/.bindings-$PG_MAJOR${2:-} found folder
    if [ -e "$note" ] && [ "$(cat "$note")" != "$1" ]; then
        folder=$CARGO_TARGET_DIR/$([ "${2:-}" = --release ] && echo release || echo debug)
        for found in "$folder"/.fingerprint/pgrx-pg-sys-*; do
            if grep -qs "pg$PG_MAJOR" "$found"/*.json; then rm -rf "$found"; fi
        done
    fi
    mkdir -p "$CARGO_TARGET_DIR"
    printf '%s\n' "$1" >"$note"
}
