#!/usr/bin/env bash
# From a bare Debian with a Rust toolchain to a running private server with the extension. Every step looks first
# whether it is already done.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

"$ROOT/scripts/packages.sh"
prepare_local
# One set-up at a time in one folder.
exec 9>"$LOCAL/.lock"
flock 9
"$ROOT/scripts/tools.sh"
"$ROOT/scripts/python.sh"
"$ROOT/scripts/build.sh"
"$ROOT/scripts/cluster.sh" start
