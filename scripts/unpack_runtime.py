"""Unpacks the shared libraries and licences of ONNX Runtime's wheel (and, for CUDA, NVIDIA's wheels) into one folder.

Usage: unpack_runtime.py FOLDER WHEEL...

ONNX Runtime's library becomes `libonnxruntime.so`; its providers and every other library keep their names, since they
look for each other by name in the folder they lie in.
"""

import pathlib
import re
import shutil
import sys
import zipfile

LIBRARY = re.compile(r"(^|/)lib[^/]+\.so(\.[0-9]+)*$")
RUNTIME = re.compile(r"^libonnxruntime\.so(\.[0-9]+)*$")


def unpack(wheel: pathlib.Path, folder: pathlib.Path) -> int:
    """Unpacks one wheel; returns how many libraries it held."""
    count = 0
    project = wheel.name.split("-")[0]
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            base = member.filename.rsplit("/", 1)[-1]
            if LIBRARY.search(member.filename):
                name = "libonnxruntime.so" if RUNTIME.match(base) else base
                count += 1
            elif base.upper().startswith(("LICENSE", "LICENCE", "THIRDPARTYNOTICES")):
                name = f"{project}-{base}"
            else:
                continue
            target = folder / name
            with archive.open(member) as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            target.chmod(0o755 if ".so" in name else 0o644)
    return count


def main(arguments: list[str]) -> None:
    if len(arguments) < 2:
        sys.exit(__doc__)
    folder, wheels = pathlib.Path(arguments[0]), [pathlib.Path(name) for name in arguments[1:]]
    for wheel in wheels:
        if unpack(wheel, folder) == 0:
            sys.exit(f"{wheel.name} holds no shared library")
    if not (folder / "libonnxruntime.so").is_file():
        sys.exit("none of the wheels holds libonnxruntime.so")


if __name__ == "__main__":
    main(sys.argv[1:])
