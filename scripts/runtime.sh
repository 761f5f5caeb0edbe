#!/usr/bin/env bash
# ONNX Runtime's shared library out of the pinned, hash-checked wheel, into .local/onnxruntime (GPU=1: with its CUDA
# providers and the CUDA libraries they link to, into .local/onnxruntime-gpu).
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
prepare_local

flavour=onnxruntime
[ -z "${GPU:-}" ] || flavour=onnxruntime-gpu
requirements=$ROOT/scripts/requirements-$flavour.txt
target=$LOCAL/$flavour
stamp=$(file_stamp "$requirements" "${BASH_SOURCE[0]}")
if [ "$(cat "$target/.stamp" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi

say "fetching ONNX Runtime $ONNXRUNTIME_VERSION ($flavour)"
"$ROOT/scripts/python.sh" bare
wheels=$(mktemp -d "$LOCAL/wheels.XXXXXX")
trap 'rm -rf "$wheels"' EXIT
"$VENV/bin/pip" download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
    --dest "$wheels" --requirement "$requirements"
rm -rf "$target.new"
mkdir -p "$target.new"
"$VENV/bin/python" "$ROOT/scripts/unpack_runtime.py" "$target.new" "$wheels"/*.whl
# The providers bring no search path of their own: Python's loader would preload CUDA for them, PostgreSQL's does not.
for provider in "$target.new"/libonnxruntime_providers_*.so; do
    # shellcheck disable=SC2016 # $ORIGIN is the dynamic linker's
    if [ -n "${GPU:-}" ]; then patchelf --set-rpath '$ORIGIN' "$provider"; fi
done
printf '%s\n' "$stamp" >"$target.new/.stamp"
rm -rf "$target"
mv "$target.new" "$target"
