#!/usr/bin/env bash
# The build stage: on a Debian 12 with a Rust toolchain, compiles the extension and lays its files out below a folder.
# Both the Dockerfile and scripts/bare-root.sh run it.
#
#   build.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive
command -v make >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends make; }
make install DESTDIR="$1"
