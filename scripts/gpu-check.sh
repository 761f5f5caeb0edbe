#!/usr/bin/env bash
# On a machine with a GPU: builds with CUDA, embeds through the service and with the bare session at batch 1 to 128,
# compares with the CPU, kills the service's process under load, and prints one table. At most eight minutes, set-up
# included; what took too long is said. IMAGES=10000 by default.
#
#   scripts/gpu-check.sh [FOLDER]      the table goes to FOLDER/gpu-check.md as well
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT"
command -v nvidia-smi >/dev/null || die "no nvidia-smi here: this check needs a machine with an NVIDIA GPU"
started=$SECONDS
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
GPU=1 make setup
say "set up after $((SECONDS - started)) s"
scripts/photographs.sh
export COPYMATCH_DSN
COPYMATCH_DSN=$(scripts/cluster.sh dsn)
left=$((480 - (SECONDS - started)))
[ "$left" -gt 60 ] || die "set-up took all the time; run it again: it is warm now"
timeout --signal=INT --kill-after=15 "$left" "$VENV/bin/python" scripts/gpu_check.py "${IMAGES:-10000}" |
    tee "${1:-$LOCAL}/gpu-check.md"
