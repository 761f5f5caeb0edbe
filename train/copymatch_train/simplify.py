"""A graph that loads fast: the exporter's scaffolding taken out, arithmetic and stored weights untouched.

Every backend of the database loads the model for itself, so each node costs every connection. PyTorch's exporter leaves
what it made on the way: a Constant node for each bound of a Clip, a CastLike (which ONNX Runtime expands as a function)
around each, casts from float to float. ONNX Runtime would remove them too, in each process again, and takes longer over
that than over all the rest of loading.

    python -m copymatch_train.simplify models/default

rewrites model.onnx and the hashes that manifest and calibration keep of it. Run as written, node by node, both files
compute the same bits, and it refuses to write otherwise; ONNX Runtime's own optimiser finds more to fuse in the new
one, which moves the last bits. Run twice, the second run changes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

FLOAT = TensorProto.FLOAT


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function with constants as initialisers, each stored once, and without casts of float to float."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    if any(kind.HasField("g") or kind.graphs for node in graph.node for kind in node.attribute):
        raise ValueError("a graph inside a node (If, Loop, Scan) may read any name; such models stay as they are")
    constants_to_initializers(graph)
    fold_constants(graph, model)
    drop_idle_casts(graph)
    share_initializers(graph)
    drop_unused(graph)
    onnx.checker.check_model(result)
    return result


def attribute(node: onnx.NodeProto, name: str):
    for found in node.attribute:
        if found.name == name:
            return onnx.helper.get_attribute_value(found)
    return None


def rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Make every reader of a key of `names` read its value instead, through chains of them."""

    def end(name: str) -> str:
        while name in names:
            name = names[name]
        return name

    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = end(name)


def keep_nodes(graph: onnx.GraphProto, kept: list[onnx.NodeProto]) -> None:
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(kept)


def constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """What a Constant node holds, in any of its numeric spellings."""
    if node.op_type != "Constant" or node.domain:
        return None
    spelling = node.attribute[0].name
    types = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    value = attribute(node, spelling)
    if spelling == "value":
        return numpy_helper.from_array(numpy_helper.to_array(value), node.output[0])
    if spelling in types:
        return numpy_helper.from_array(np.array(value, types[spelling]), node.output[0])
    return None


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        tensor = constant(node)
        if tensor is None:
            kept.append(node)
        else:
            graph.initializer.add().CopyFrom(tensor)
    keep_nodes(graph, kept)


# Larger values than this stay computed.
FOLDED = 16384


def fold_constants(graph: onnx.GraphProto, model: onnx.ModelProto) -> None:
    """What depends on constants alone (grids, shapes of fixed sizes) becomes a constant; the network's weights stay
    what and where they are."""
    weights = {t.name for t in model.graph.initializer if t.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)}
    known = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name not in weights}
    outputs = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if not inputs or any(name not in known for name in inputs) or outputs.intersection(node.output):
            kept.append(node)
            continue
        values = ReferenceEvaluator(node, opsets={o.domain: o.version for o in model.opset_import}).run(
            None, {name: known[name] for name in inputs}
        )
        if any(value.size > FOLDED for value in values):
            kept.append(node)
            continue
        for name, value in zip(node.output, values):
            known[name] = np.ascontiguousarray(value)
            graph.initializer.add().CopyFrom(numpy_helper.from_array(known[name], name))
    keep_nodes(graph, kept)


def drop_idle_casts(graph: onnx.GraphProto) -> None:
    """Casts of float to float. What is float is followed through the operators that keep their input's type."""
    outputs = {value.name for value in graph.output}
    floats = {v.name for v in graph.input if v.type.tensor_type.elem_type == FLOAT}
    floats |= {t.name for t in graph.initializer if t.data_type == FLOAT}
    # Of these the first output has the type of the first input (onnx's operator schemas).
    keeping = {
        "Abs", "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "Div", "Expand", "Flatten",
        "Gather",
        "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "MatMul", "Max", "MaxPool", "Min", "Mul",
        "Neg",
        "Pow", "Reciprocal", "ReduceL2", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Sigmoid", "Slice",
        "Softmax",
        "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze",
    }  # fmt: skip
    kept, names = [], {}
    for node in graph.node:
        source = names.get(node.input[0], node.input[0]) if node.input else ""
        to = None
        if node.op_type == "Cast":
            to = attribute(node, "to")
        elif node.op_type == "CastLike" and names.get(node.input[1], node.input[1]) in floats:
            to = FLOAT
        if to == FLOAT and source in floats and node.output[0] not in outputs:
            names[node.output[0]] = source
            continue
        if to == FLOAT or (node.op_type in keeping and source in floats):
            floats.add(node.output[0])
        kept.append(node)
    keep_nodes(graph, kept)
    rename(graph, names)


def share_initializers(graph: onnx.GraphProto) -> None:
    # What the graph shows by name keeps it.
    shown = {value.name for value in [*graph.input, *graph.output]}
    first, names, kept = {}, {}, []
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        same = (
            tensor.name
            if tensor.name in shown
            else first.setdefault((tensor.data_type, value.shape, value.tobytes()), tensor.name)
        )
        if same == tensor.name:
            kept.append(onnx.TensorProto.FromString(tensor.SerializeToString()))
        else:
            names[tensor.name] = same
    del graph.initializer[:]
    graph.initializer.extend(kept)
    rename(graph, names)


def drop_unused(graph: onnx.GraphProto) -> None:
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    keep_nodes(graph, kept[::-1])
    used = [onnx.TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(used)


def unoptimised(weights: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])


def rewrite(folder: Path) -> dict:
    """Simplify the model of a folder in place; refuse if a descriptor changes by a single bit."""
    before = (folder / "model.onnx").read_bytes()
    after = simplify(onnx.load_from_string(before)).SerializeToString()
    manifest = json.loads((folder / "manifest.json").read_text())
    side = max(manifest["input"]["sizes"])
    probe = np.random.default_rng(0).normal(size=(3, 3, side, side)).astype(np.float32)
    inputs = {manifest["input"]["name"]: probe}
    old, new = (unoptimised(weights).run([manifest["output"]["name"]], inputs)[0] for weights in (before, after))
    if not np.array_equal(old, new):
        raise RuntimeError(f"descriptors change by {np.abs(old - new).max():.2e}; not written")
    hashes = [hashlib.sha256(weights).hexdigest() for weights in (before, after)]
    (folder / "model.onnx").write_bytes(after)
    for name in ("manifest.json", "calibration.json"):
        if (folder / name).exists():
            text = (folder / name).read_text()
            (folder / name).write_text(text.replace(hashes[0], hashes[1]))
    return dict(
        bytes=[len(before), len(after)], nodes=[len(onnx.load_from_string(w).graph.node) for w in (before, after)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with model.onnx and manifest.json")
    print(json.dumps(rewrite(parser.parse_args().folder)))


if __name__ == "__main__":
    main()
