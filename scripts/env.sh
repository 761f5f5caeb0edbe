# shellcheck shell=bash
# Sourced by every script: where things live, as whom the server runs, how to speak.
#
#   COPYMATCH_LOCAL   the private folder (default ./.local): server, cluster, logs, Python environment
#   CARGO_TARGET_DIR  cargo's own (default ./target)
#   PG_MAJOR          PostgreSQL's major version, 14 to 18 (default: PG_CONFIG's; 15, Debian 12's, without one)
#   PG_CONFIG         the pg_config of another PostgreSQL than Debian's: any that has a folder of its own
#   PG_BINDINGS       "pgrx": that one is a 14 without C headers; build with the bindings that pgrx carries
#                     (bindings.sh)
#   PYTHON            the Python that makes the environment (default python3)

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# Read by the scripts that source this file.
# shellcheck disable=SC2034
PYTHON=${PYTHON:-python3}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
PATH=$PATH:$HOME/.cargo/bin
# For every Python that loads ONNX Runtime; the extension switches its telemetry off for itself.
export ORT_DISABLE_TELEMETRY=1

# Pinned. A change here is a change of what everybody builds with.
# shellcheck disable=SC2034
PGRX_VERSION=0.18.1
# shellcheck disable=SC2034
CYCLONEDX_VERSION=0.5.9
# shellcheck disable=SC2034
CARGO_FUZZ_VERSION=0.13.2
# shellcheck disable=SC2034
ONNXRUNTIME_VERSION=1.31.1

QUIET=${QUIET:-}

say() { if [ -z "$QUIET" ]; then printf '%s\n' "copymatch: $*"; fi; }
die() {
    printf '%s\n' "copymatch: error: $*" >&2
    exit 1
}

# make exports its variables also when they are empty; pgrx would take an empty PG_CONFIG for a path.
if [ -z "${PG_CONFIG:-}" ]; then
    unset PG_CONFIG
    PG_MAJOR=${PG_MAJOR:-15}
else
    found=$(command -v -- "$PG_CONFIG") || die "PG_CONFIG is '$PG_CONFIG': there is no such program"
    # /usr/bin/pg_config of Debian speaks for one of several PostgreSQLs: the one beside the
    # server it names is that one's.
    beside=$("$found" --bindir)/pg_config
    PG_CONFIG=$(readlink -f "$([ -x "$beside" ] && printf %s "$beside" || printf %s "$found")")
    export PG_CONFIG
    major=$("$PG_CONFIG" --version | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')
    [ "${PG_MAJOR:-$major}" = "$major" ] || die "$PG_CONFIG is PostgreSQL $major's; leave PG_MAJOR=$PG_MAJOR out"
    PG_MAJOR=$major
fi

case $PG_MAJOR in
    14 | 15 | 16 | 17 | 18) ;;
    *) die "PG_MAJOR is '$PG_MAJOR'; it must be 14, 15, 16, 17 or 18" ;;
esac

# PostgreSQL refuses to run as root. Root lends the server to the user that Debian's package made for it; anybody else
# runs it as himself.
if [ "$(id -u)" -eq 0 ]; then
    SERVER_USER=postgres
else
    SERVER_USER=$(id -un)
fi

# as_server COMMAND…: run it as the server's user. setpriv keeps the environment and needs neither PAM nor a shell.
as_server() {
    if [ "$(id -u)" -eq 0 ]; then
        (cd / && HOME=/ exec setpriv --reuid "$SERVER_USER" --regid "$SERVER_USER" --init-groups -- "$@")
    else
        (cd / && exec "$@")
    fi
}

# as_root COMMAND…: for installing Debian packages and nothing else.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        die "this needs root, and there is no sudo here. Run as root: $*"
    fi
}

# The private folder. The server's user must be able to reach it: a clone below /root or another closed home gets its
# private folder under /var/tmp instead, and a link where it would have been.
prepare_local() {
    local wanted=${COPYMATCH_LOCAL:-$ROOT/.local} real parent
    case $wanted in /*) ;; *) wanted=$PWD/$wanted ;; esac
    if [ ! -e "$wanted" ] && [ "$(id -u)" -eq 0 ] && getent passwd "$SERVER_USER" >/dev/null; then
        rm -f "$wanted" # a link to a folder that is gone
        parent=$(dirname "$wanted")
        mkdir -p "$parent"
        if ! as_server test -x "$parent"; then
            real=/var/tmp/copymatch-$(printf '%s' "$wanted" | sha256sum | cut -c1-12)
            if ! mkdir -m 755 "$real" 2>/dev/null && { [ -L "$real" ] || [ "$(stat -c %u "$real")" -ne 0 ]; }; then
                die "$real belongs to somebody else; set COPYMATCH_LOCAL"
            fi
            ln -s "$real" "$wanted"
            say "$parent is closed to the user $SERVER_USER; private files go to $real"
        fi
    fi
    mkdir -p "$wanted"
    : >"$wanted/.copymatch" # what `make clean` asks for before it removes the folder
    name_local "$wanted"
}

# name_local FOLDER: the names of everything inside the private folder.
# shellcheck disable=SC2034
name_local() {
    LOCAL=$(readlink -m "$1")
    PREFIX=$LOCAL/pgsql
    PG_BIN=$PREFIX/lib/postgresql/$PG_MAJOR/bin
    DATA=$LOCAL/data-$PG_MAJOR
    LOG=$LOCAL/log
    VENV=$LOCAL/venv
}

# The system's PostgreSQL: read, never written to. PG_CONFIG names another one.
# shellcheck disable=SC2034
SYSTEM_PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/$PG_MAJOR/bin/pg_config}
# shellcheck disable=SC2034
TOOLS=$CARGO_TARGET_DIR/tools

# file_stamp FILE…: one line that changes when one of the files does.
file_stamp() { sha256sum -- "$@" | sha256sum | cut -c1-16; }

# retried COMMAND…: a registry may be away for a moment. Three tries, half a minute apart.
retried() {
    local try
    for try in 1 2 3; do
        if "$@"; then return; fi
        if [ "$try" -lt 3 ]; then
            say "failed: $1; once more in 30 s"
            sleep 30
        fi
    done
    return 1
}

name_local "${COPYMATCH_LOCAL:-$ROOT/.local}"
