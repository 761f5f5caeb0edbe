#!/usr/bin/env bash
# The private Python environment of tests, demo and lint: exact versions, hashes checked.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
prepare_local

lists=("$ROOT/requirements-test.txt")
for extra in "$ROOT/demo/requirements.txt"; do
    if [ -e "$extra" ]; then lists+=("$extra"); fi
done
stamp=$(file_stamp "${lists[@]}")
if [ -x "$VENV/bin/python" ] && [ "$(cat "$VENV/.stamp" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
say "Python environment in $VENV"
if ! "$VENV/bin/python" -c '' 2>/dev/null; then
    rm -rf "$VENV"
    "$PYTHON" -m venv "$VENV"
fi
arguments=()
for list in "${lists[@]}"; do arguments+=(--requirement "$list"); done
"$VENV/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: "${arguments[@]}"
printf '%s\n' "$stamp" >"$VENV/.stamp"
