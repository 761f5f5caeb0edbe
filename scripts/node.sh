#!/usr/bin/env bash
# Node's clients for the tests, exact versions with hashes, below .local/node: where there is npm. Without
# it their tests are skipped.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
prepare_local

command -v npm >/dev/null || exit 0
folder=$LOCAL/node
stamp=$(file_stamp "$ROOT/tests/clients/package-lock.json")
if [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi
rm -rf "$folder"
mkdir -p "$folder"
cp "$ROOT"/tests/clients/package{,-lock}.json "$folder/"
if (cd "$folder" && npm ci --silent --ignore-scripts --no-audit --no-fund); then
    printf '%s\n' "$stamp" >"$folder/.stamp"
else
    rm -rf "$folder"
    say "npm did not give the clients for node: their tests are skipped"
fi
