import hashlib
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from copymatch_train.export import OPSET
from copymatch_train.simplify import rewrite, simplify, unoptimised


def scaffolded() -> onnx.ModelProto:
    """A convolution with half-precision weights and two clips, as PyTorch's exporter writes them."""
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float16)
    nodes = [helper.make_node("Cast", ["w16"], ["w"], to=TensorProto.FLOAT)]
    source = "image"
    for n in range(2):
        nodes += [
            helper.make_node("Conv", [source, "w" if n == 0 else "w1"], [f"conv{n}"], pads=[1, 1, 1, 1]),
            helper.make_node("Constant", [], [f"low{n}"], value_float=0.0),
            helper.make_node("Constant", [], [f"high{n}"], value_float=6.0),
            helper.make_node("CastLike", [f"low{n}", f"conv{n}"], [f"low_cast{n}"]),
            helper.make_node("CastLike", [f"high{n}", f"conv{n}"], [f"high_cast{n}"]),
            helper.make_node("Clip", [f"conv{n}", f"low_cast{n}", f"high_cast{n}"], [f"clip{n}"]),
        ]
        source = f"clip{n}"
    nodes += [
        helper.make_node("Constant", [], ["axes"], value_ints=[2, 3]),
        helper.make_node("ReduceMean", [source, "axes"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["mean"], ["descriptor"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["mean"], ["unused"]),
    ]
    second = np.random.default_rng(1).normal(size=(4, 4, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weights, "w16"), numpy_helper.from_array(second, "w1")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def run(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    return unoptimised(model.SerializeToString()).run(None, {"image": image})[0]


def test_scaffolding_goes_and_every_bit_stays():
    model = scaffolded()
    simple = simplify(model)
    # The output's own cast names it; the weights' cast is what keeps the file small.
    assert sorted(operators(simple)) == ["Cast", "Cast", "Clip", "Clip", "Conv", "Conv", "ReduceMean"]
    assert len(simple.graph.initializer) == 5  # two weights, 0 and 6 once each, the axes
    image = np.random.default_rng(2).normal(size=(2, 3, 8, 8)).astype(np.float32)
    assert np.array_equal(run(model, image), run(simple, image))


def test_what_depends_on_constants_alone_is_computed_once():
    nodes = [
        helper.make_node("Constant", [], ["start"], value_int=0),
        helper.make_node("Constant", [], ["end"], value_int=8),
        helper.make_node("Constant", [], ["step"], value_int=1),
        helper.make_node("Range", ["start", "end", "step"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["grid"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["image", "grid"], ["descriptor"]),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in ("image", "descriptor")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", value[:1], value[1:]),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
    )
    simple = simplify(model)
    assert operators(simple) == ["Mul"] and [t.name for t in simple.graph.initializer] == ["grid"]
    image = np.random.default_rng(3).normal(size=(2, 8)).astype(np.float32)
    assert np.array_equal(run(model, image), run(simple, image))


def test_a_second_time_changes_nothing():
    once = simplify(scaffolded())
    assert simplify(once).SerializeToString() == once.SerializeToString()


def test_a_cast_that_changes_numbers_stays():
    nodes = [
        helper.make_node("Cast", ["image"], ["whole"], to=TensorProto.INT64),
        helper.make_node("CastLike", ["whole", "image"], ["rounded"]),
        helper.make_node("Add", ["rounded", "image"], ["descriptor"]),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("image", "descriptor")]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    assert operators(simplify(model)) == ["Cast", "CastLike", "Add"]
    image = np.array([1.75, -2.5], np.float32)
    assert np.array_equal(run(simplify(model), image), np.array([2.75, -4.5], np.float32))


def test_a_graph_inside_a_node_is_refused():
    value = [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, [None])]
    branch = helper.make_graph([helper.make_node("Identity", ["image"], ["descriptor"])], "b", [], value)
    node = helper.make_node("If", ["chosen"], ["descriptor"], then_branch=branch, else_branch=branch)
    model = helper.make_model(helper.make_graph([node], "g", [], value))
    with pytest.raises(ValueError, match="graph inside a node"):
        simplify(model)


def test_a_model_folder_is_rewritten_with_the_hashes_that_belong_to_it(tmp_path):
    weights = scaffolded().SerializeToString()
    before = hashlib.sha256(weights).hexdigest()
    (tmp_path / "model.onnx").write_bytes(weights)
    manifest = dict(input=dict(name="image", sizes=[8]), output=dict(name="descriptor"), weights_sha256=before)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "calibration.json").write_text(json.dumps(dict(weights_sha256=before, factor=2.5)))
    rewrite(tmp_path)
    after = hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
    assert after != before
    assert json.loads((tmp_path / "manifest.json").read_text())["weights_sha256"] == after
    assert json.loads((tmp_path / "calibration.json").read_text()) == dict(weights_sha256=after, factor=2.5)
    onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
