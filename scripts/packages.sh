#!/usr/bin/env bash
# Installs the Debian packages that are missing, after saying which and why. Touches no existing cluster and makes none.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

missing=() reasons=()
need() { # need PACKAGE REASON
    missing+=("$1")
    reasons+=("$2")
}

bin=${SYSTEM_PG_CONFIG%/pg_config}
if [ "$bin" = "/usr/lib/postgresql/$PG_MAJOR/bin" ]; then
    [ -x "$bin/postgres" ] || need "postgresql-$PG_MAJOR" "the server, its tools and contrib extensions"
    [ -e "/usr/include/postgresql/$PG_MAJOR/server/postgres.h" ] ||
        need "postgresql-server-dev-$PG_MAJOR" "PostgreSQL's C headers, from which pgrx makes its bindings"
else
    # Somebody else's PostgreSQL is asked for nothing but what it must have.
    [ -x "$("$SYSTEM_PG_CONFIG" --bindir)/postgres" ] ||
        die "PG_CONFIG's PostgreSQL has no server: there is no postgres in $("$SYSTEM_PG_CONFIG" --bindir)"
    headers=$("$SYSTEM_PG_CONFIG" --includedir-server)
    [ -e "$headers/postgres.h" ] || [ "${PG_BINDINGS:-}" = pgrx ] ||
        die "PG_CONFIG's PostgreSQL has no C headers in $headers: install its development package"
fi
if ! ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1; then
    need libclang-dev "reads those headers (bindgen)"
fi
command -v cc >/dev/null || need gcc "links Rust programs"
[ -e /usr/include/stdio.h ] || need libc6-dev "the C library's headers"
command -v "$PYTHON" >/dev/null || need python3 "tests and demo"
if ! "$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    need python3-venv "the private Python environment of tests and demo"
fi
[ -e /etc/ssl/certs/ca-certificates.crt ] || need ca-certificates "cargo and pip check who they talk to"

command -v cjpeg >/dev/null || need libjpeg-turbo-progs "cjpeg writes the JPEGs that the decoder is tested with"

if [ -n "${GPU:-}" ] && ! command -v patchelf >/dev/null; then
    need patchelf "tells ONNX Runtime's CUDA provider to look for CUDA's libraries beside itself"
fi

# What only `make lint` needs.
if [ "${1:-}" = lint ]; then
    command -v shellcheck >/dev/null || need shellcheck "checks the shell scripts"
fi
# And `make package`.
if [ "${1:-}" = package ]; then
    dpkg-query -W libclang-dev >/dev/null 2>&1 || need libclang-dev "Debian's name for it, which the package asks for"
    # Only an installed one counts: dpkg-query also knows packages that were removed.
    dpkg-query -W -f '${db:Status-Status}' build-essential 2>/dev/null | grep -qx installed ||
        need build-essential "what dpkg-buildpackage takes for granted"
    command -v dh >/dev/null || need debhelper "lays the package out"
    command -v dpkg-buildpackage >/dev/null || need dpkg-dev "builds the package"
    command -v lintian >/dev/null || need lintian "checks the package"
fi
# And `make fuzz`.
if [ "${1:-}" = fuzz ]; then
    command -v c++ >/dev/null || need g++ "compiles libFuzzer"
fi

[ ${#missing[@]} -gt 0 ] || exit 0

say "Debian packages to install:"
for i in "${!missing[@]}"; do printf '    %-28s %s\n' "${missing[i]}" "${reasons[i]}"; done
command -v apt-get >/dev/null ||
    die "no apt-get here; install the packages above by hand (this set-up knows Debian and its kin)"

export DEBIAN_FRONTEND=noninteractive
if ! apt-cache show "${missing[@]}" >/dev/null 2>&1; then
    say "apt-get update"
    retried as_root apt-get update -qq || die "apt-get update failed three times"
fi
case " ${missing[*]} " in
    *" postgresql-$PG_MAJOR "*)
        apt-cache show "postgresql-$PG_MAJOR" >/dev/null 2>&1 ||
            die "the package sources of this machine have no postgresql-$PG_MAJOR (Debian 12 has 15, Debian 13 has" \
                "17); add PGDG, the PostgreSQL project's own, which has all, or name another PostgreSQL with PG_CONFIG"
        ;;
esac

# On a machine without PostgreSQL, Debian's package would make a cluster "main" and start it: that is a side effect
# nobody asked for. postgresql-common reads this setting; it is put there only where the package is not yet installed.
config=/etc/postgresql-common/createcluster.conf
drop_in=
if ! dpkg-query -W -f '${Status}' postgresql-common 2>/dev/null | grep -q 'ok installed' && [ ! -e "$config" ]; then
    drop_in=yes
    as_root mkdir -p "$(dirname "$config")"
    printf 'create_main_cluster = false\n' | as_root tee "$config" >/dev/null
fi
restore() {
    # With the file gone, the package's own default is what the next version it installs will see.
    if [ -n "$drop_in" ]; then
        as_root rm -f "$config"
        if [ -e /usr/share/postgresql-common/createcluster.conf ]; then
            as_root cp /usr/share/postgresql-common/createcluster.conf "$config"
        fi
    fi
}
trap restore EXIT

as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Options::=--force-confold "${missing[@]}" >"${TMPDIR:-/tmp}/copymatch-apt.$$" 2>&1 || {
    cat "${TMPDIR:-/tmp}/copymatch-apt.$$" >&2
    rm -f "${TMPDIR:-/tmp}/copymatch-apt.$$"
    die "apt-get could not install: ${missing[*]}"
}
rm -f "${TMPDIR:-/tmp}/copymatch-apt.$$"
say "installed ${missing[*]}"
