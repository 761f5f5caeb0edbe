"""Somebody else's network → a model folder for copy_add_model: weights, manifest and, with a configuration,
background and calibration.

    python -m copymatch_train.adopt network.onnx FOLDER --name some-net --licence MIT --source 'who made it' --sizes
    288 --fit short python -m copymatch_train.adopt network.onnx FOLDER … --config
    train/configs/default-negatives.yaml      # needs the pictures

What the file itself says is read from it: names, layout, type, dimensions. What it cannot say has to be given:
sizes, fit, filter, colour order and, for floats, mean and deviation. docs/models.md explains every field. The
network is run, never changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from .export import describe, session
from .preprocess import FILTERS, waves_v1

TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


class AdoptError(ValueError):
    """The network is none that a manifest can describe."""


def interface(run: onnxruntime.InferenceSession, output: str | None = None) -> tuple[dict, str]:
    """The manifest's `input` as far as the file knows it, and the name of the output."""
    inputs, outputs = run.get_inputs(), run.get_outputs()
    if len(inputs) != 1:
        raise AdoptError(f"the network has {len(inputs)} inputs, one image is wanted")
    if output is None and len(outputs) != 1:
        raise AdoptError(
            f"the network has {len(outputs)} outputs ({', '.join(o.name for o in outputs)}); name one with --output"
        )
    found = [o for o in outputs if output in (None, o.name)]
    if not found:
        raise AdoptError(f"the network has no output {output!r}")
    shape = inputs[0].shape
    if inputs[0].type not in TYPES or len(shape) != 4:
        raise AdoptError(
            f"input {inputs[0].name!r} is {inputs[0].type} of {len(shape)} dimensions; four of float or uint8 are "
            "wanted"
        )
    if 3 not in (shape[1], shape[3]):
        raise AdoptError(
            f"input {inputs[0].name!r} is {shape}: neither its second nor its last dimension is 3, the colours"
        )
    return dict(name=inputs[0].name, layout="NHWC" if shape[3] == 3 else "NCHW", type=TYPES[inputs[0].type]), found[
        0
    ].name


def manifest_of(weights: bytes, run: onnxruntime.InferenceSession, a: argparse.Namespace) -> dict:
    known, output = interface(run, a.output)
    how = dict(name=known["name"], sizes=a.sizes, layout=known["layout"], colour=a.colour, resize=a.resize)
    if known["type"] != "float32":
        how["type"] = known["type"]
        if a.mean or a.std:
            raise AdoptError("--mean and --std are for networks that take floats; this one takes bytes")
    else:
        how |= dict(mean=a.mean or [0.5, 0.5, 0.5], std=a.std or [0.5, 0.5, 0.5])
    if a.fit != "square":
        how["fit"] = a.fit
    manifest = dict(
        manifest_version=1, name=a.name, version=a.version, dimensions=0, input=how, output=dict(name=output)
    )
    parity = describe(run, [waves_v1()], manifest)[0]
    if not np.isfinite(parity).all():
        raise AdoptError("the network's answer to the parity picture is not finite")
    manifest |= dict(
        dimensions=len(parity), weights_sha256=hashlib.sha256(weights).hexdigest(), licence=a.licence, source=a.source
    )
    manifest["parity"] = [
        dict(pattern="waves-v1", descriptor=[round(float(v), 6) for v in parity], tolerance=a.tolerance)
    ]
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, help="one self-contained ONNX file: an image in, a descriptor out")
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", default="1")
    parser.add_argument("--licence", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", required=True)
    parser.add_argument("--fit", choices=("square", "short"), default="square")
    parser.add_argument("--resize", choices=tuple(FILTERS), default="bilinear")
    parser.add_argument("--colour", choices=("RGB", "BGR"), default="RGB")
    parser.add_argument("--mean", type=float, nargs=3)
    parser.add_argument("--std", type=float, nargs=3)
    parser.add_argument("--output", help="name of the output, where there are several")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.005,
        help="of the parity descriptor, any component; int8 networks differ between processors",
    )
    parser.add_argument("--config", type=Path, help="whose pictures make background and calibration")
    parser.add_argument("--rows", type=int, default=8192, help="of the background")
    a = parser.parse_args()
    weights = a.network.read_bytes()
    try:
        manifest = manifest_of(weights, session(weights), a)
    except AdoptError as error:
        raise SystemExit(f"error: {error}") from None
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "model.onnx").write_bytes(weights)
    (a.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(json.dumps({k: v for k, v in manifest.items() if k != "parity"}))
    if a.config:
        for module, further in (("background", ["--rows", str(a.rows)]), ("calibrate", [])):
            subprocess.run(
                [sys.executable, "-m", f"copymatch_train.{module}", str(a.config), str(a.out), *further], check=True
            )


if __name__ == "__main__":
    main()
