"""Adds to cargo-cyclonedx's bill of materials what cargo does not know of: ONNX Runtime and the
built-in model. Prints it.

Usage: sbom.py BILL ENCODER'S-BILL

Everything in the encoder's program must be in the library's bill, too: the release has one.
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def runtime() -> dict:
    """ONNX Runtime, by the wheel that is pinned."""
    pin = (ROOT / "scripts" / "requirements-onnxruntime.txt").read_text()
    version = re.search(r"^onnxruntime==(\S+)", pin, re.MULTILINE).group(1)
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/onnxruntime@{version}",
        "name": "onnxruntime",
        "version": version,
        "description": "loaded at run time; beside the library",
        "scope": "required",
        "licenses": [{"expression": "MIT"}],
        "purl": f"pkg:pypi/onnxruntime@{version}",
    }


def model() -> dict:
    """The model that is compiled in."""
    manifest = json.loads((ROOT / "models" / "default" / "manifest.json").read_text())
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{manifest['name']}",
        "name": manifest["name"],
        "version": manifest["version"],
        "description": manifest["licence"],
        "scope": "required",
        "hashes": [{"alg": "SHA-256", "content": manifest["weights_sha256"]}],
        "licenses": [{"expression": "Apache-2.0 OR MIT"}],
    }


def main(library: str, encoder: str) -> None:
    # The folder that it was made in is nobody's business.
    bill, other = (
        json.loads(pathlib.Path(path).read_text().replace(f"path+file://{ROOT}", "path+file://."))
        for path in (library, encoder)
    )
    ours, theirs = ({(part["name"], part["version"]) for part in one["components"]} for one in (bill, other))
    if theirs - ours:
        sys.exit(f"the encoder's program has what the library's bill lacks: {sorted(theirs - ours)}")
    locked = set(re.findall(r'^name = "(.*)"\nversion = "(.*)"', (ROOT / "Cargo.lock").read_text(), re.MULTILINE))
    if ours - locked:
        sys.exit(f"not in Cargo.lock: {sorted(ours - locked)}")
    program = other["metadata"]["component"] | {"type": "application"}
    program["purl"] = program["purl"].partition("?")[0]
    program.pop("components", None)
    for component in (program, runtime(), model()):
        bill["components"].append(component)
        needs = [entry for entry in other["dependencies"] if entry["ref"] == component["bom-ref"]]
        bill["dependencies"].extend(needs or [{"ref": component["bom-ref"], "dependsOn": []}])
        (root,) = (entry for entry in bill["dependencies"] if entry["ref"] == bill["metadata"]["component"]["bom-ref"])
        root["dependsOn"].append(component["bom-ref"])
    json.dump(bill, sys.stdout, indent=2, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
