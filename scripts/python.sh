#!/usr/bin/env bash
# The private Python environment of tests and demo (python.sh lint: of lint; python.sh bare: nothing but pip): exact
# versions, hashes checked.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
prepare_local

if [ "${1:-}" = bare ]; then # pip alone, for fetching wheels
    [ -x "$VENV/bin/pip" ] || "$PYTHON" -m venv "$VENV"
    exit 0
fi
# Each list keeps its own stamp: lint's tools join the same environment when they are first asked for.
name=requirements-${1:-test}
stamp=$(file_stamp "$ROOT/$name.txt")
if [ -x "$VENV/bin/python" ] && [ "$(cat "$VENV/.$name" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
say "Python environment in $VENV"
if ! "$VENV/bin/python" -c '' 2>/dev/null; then
    rm -rf "$VENV"
    "$PYTHON" -m venv "$VENV"
fi
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
    --requirement "$ROOT/$name.txt"
printf '%s\n' "$stamp" >"$VENV/.$name"
