"""Trained network → model.onnx + manifest.json.

Weights are rounded to float16 and stored so, each followed by a Cast, while inputs, outputs and arithmetic stay
float32: half the file, no change of interface, and ONNX Runtime folds the casts when it loads the model.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from . import config as configuration
from .config import Config
from .network import CopyNetwork
from .preprocess import prepared, to_input, waves_v1

OPSET = 18
# Below this many elements a weight stays float32: nothing to save.
SMALL = 1024


def round_weights(network: CopyNetwork) -> None:
    """Round every weight that the file will hold as float16, so that PyTorch and the file hold the same numbers."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() >= SMALL:
                parameter.copy_(parameter.half().float())


def to_onnx(network: CopyNetwork, side: int) -> onnx.ModelProto:
    """Float32 graph: input `image` (batch, 3, height, width), output `descriptor` (batch, dimensions)."""
    network.eval()
    example = torch.zeros(2, 3, side, side)
    batch = torch.export.Dim("batch", min=1, max=4096)
    buffer = io.BytesIO()
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["descriptor"],
        dynamic_shapes={"x": {0: batch}},
        verbose=False,
        # Optimising would fold batch normalisation into the weights after they were rounded;
        # ONNX Runtime does it at load.
        optimize=False,
    )
    program.save(buffer)
    model = onnx.load_from_string(buffer.getvalue())
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    if network.locator is None:  # whose grid of cells is that of one size
        for axis, name in ((2, "height"), (3, "width")):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return model


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store large float32 initialisers as float16 + Cast. Exact when the values already are float16 numbers."""
    kept, casts = [], []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.data_type == TensorProto.FLOAT and array.size >= SMALL:
            half = numpy_helper.from_array(array.astype(np.float16), tensor.name + "_f16")
            kept.append(half)
            casts.append(
                helper.make_node("Cast", [half.name], [tensor.name], to=TensorProto.FLOAT, name=tensor.name + "_cast")
            )
        else:
            kept.append(tensor)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = casts + list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def session(weights: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])


def describe(run: onnxruntime.InferenceSession, images: list, manifest: dict) -> np.ndarray:
    """Unit descriptors (N, D): mean of the unit descriptors over the manifest's sizes, unit again."""
    total = 0
    how, output = manifest["input"], manifest["output"]["name"]
    for side in how["sizes"]:
        inputs = [prepared(i, side, how) for i in images]
        # Images whose aspect ratio is kept do not fit into one tensor.
        batches = [np.stack(inputs)] if len({i.shape for i in inputs}) == 1 else [i[None] for i in inputs]
        d = np.concatenate([run.run([output], {how["name"]: batch})[0] for batch in batches])
        total = total + d / np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 1e-12)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def export(network: CopyNetwork, config: Config, out: Path, licence: str, source: str) -> dict:
    """Write model.onnx and manifest.json; refuse a file that differs from PyTorch by more than 1e-3."""
    out.mkdir(parents=True, exist_ok=True)
    network = network.float().eval()
    original = [p.detach().clone() for p in network.parameters()]
    e = config.export
    rng = np.random.default_rng(0)
    probe = torch.from_numpy(rng.normal(size=(3, 3, e.sizes[0], e.sizes[0])).astype(np.float32))
    probe[0] = torch.from_numpy(to_input(waves_v1(), e.sizes[0], e.resize, e.mean, e.std))
    with torch.no_grad():
        before = network(probe).numpy()
        round_weights(network)
        after = network(probe).numpy()
    weights = halve_weights(to_onnx(network, e.sizes[0])).SerializeToString()
    run = session(weights)
    onnx_out = run.run(["descriptor"], {"image": probe.numpy()})[0]
    one = run.run(["descriptor"], {"image": probe.numpy()[:1]})[0]
    difference = float(max(np.abs(onnx_out - after).max(), np.abs(one - after[:1]).max()))
    # Not `> 1e-3`: NaN must fail too.
    if not difference <= 1e-3:
        raise RuntimeError(f"ONNX Runtime differs from PyTorch by {difference:.2e}, limit 1e-3")
    manifest = dict(
        manifest_version=1,
        name=e.name,
        version=e.version,
        dimensions=config.network.dimensions,
        input=dict(name="image", sizes=e.sizes, layout="NCHW", colour="RGB", resize=e.resize, mean=e.mean, std=e.std),
        output=dict(name="descriptor"),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        licence=licence,
        source=source,
    )
    parity = describe(run, [waves_v1()], manifest)[0]
    manifest["parity"] = [dict(pattern="waves-v1", descriptor=[round(float(v), 6) for v in parity], tolerance=0.005)]
    (out / "model.onnx").write_bytes(weights)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), original):
            parameter.copy_(value)
    report = dict(
        bytes=len(weights),
        opset=OPSET,
        onnx_vs_pytorch=difference,
        float16_vs_float32=float(np.abs(before - after).max()),
    )
    print(json.dumps(report))
    return report


LICENCE = "Apache-2.0 OR MIT; initialised from MobileNetV2 (Apache-2.0)"
SOURCE = "copymatch train/, see README.md beside this file"


def main() -> None:
    parser = argparse.ArgumentParser(description="Export a checkpoint to ONNX with its manifest.")
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path, help="for example models/default")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--checkpoint", type=Path)
    group.add_argument(
        "--untrained", action="store_true", help="initialisation only: pretrained trunk and PCA whitening"
    )
    a = parser.parse_args()
    config = configuration.load(a.config)
    torch.manual_seed(config.run.seed)
    network = CopyNetwork(config.network)
    if a.untrained:
        from .initialise import initialise
        from .pictures import Pictures

        pictures = Pictures.of(config.data)
        torch.set_num_threads(config.run.threads)
        initialise(network, config, pictures, np.flatnonzero(~pictures.held_out(config.data.held_out)))
    else:
        from .checkpoint import load_for_inference

        load_for_inference(a.checkpoint, network, config)
    export(network, config, a.out, LICENCE, SOURCE)


if __name__ == "__main__":
    main()
