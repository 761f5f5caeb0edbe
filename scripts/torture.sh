#!/usr/bin/env bash
# make torture: everything that ends a server, a session or a statement in the midst of work, within twenty minutes
# (SHORT=1: five). COPYMATCH_DSN names the private server.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

if [ -n "${SHORT:-}" ]; then
    export COPYMATCH_CRASH_ROUNDS=2 COPYMATCH_TORTURE_SECONDS=10
    limit=300
else
    export COPYMATCH_CRASH_ROUNDS=8 COPYMATCH_TORTURE_SECONDS=90
    limit=1200
fi
cd "$ROOT"
# Interrupted, so that pytest still says what it was at, and its clusters are removed.
timeout --signal=INT --kill-after=30 "$limit" "$LOCAL/venv/bin/python" -m pytest -q --durations=10 \
    tests/test_torture.py tests/test_pressure.py tests/test_ivf_crash.py tests/test_replicas.py \
    tests/test_queue.py tests/test_reembed.py tests/test_service.py \
    -k 'torture or pressure or ivf_crash or replicas or service or killed'
