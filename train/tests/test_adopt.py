"""Other people's networks: what their file says, and what a manifest makes of it."""

import argparse
import sys

import numpy as np
import onnx
import pytest
from conftest import photograph
from onnx import TensorProto, helper
from PIL import Image

from copymatch_train import adopt
from copymatch_train.export import describe, session
from copymatch_train.preprocess import prepared


def network(kind=TensorProto.UINT8, shape=("n", "h", "w", 3), outputs=1) -> bytes:
    """descriptor = mean colour and the input's sides over 1,000: what the network sees."""
    axes = [1, 2] if shape[3] == 3 else [2, 3]
    at = [1, 2] if shape[3] == 3 else [2, 3]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=axes, keepdims=0),
        helper.make_node("Shape", ["pixels"], ["shape"]),
        helper.make_node("Gather", ["shape", "at"], ["sides"]),
        helper.make_node("Cast", ["sides"], ["sides_f"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["sides_f", "zero"], ["row"]),
        helper.make_node("Shape", ["means"], ["rows"]),
        helper.make_node("Gather", ["rows", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "two"], ["wide"], axis=0),
        helper.make_node("Expand", ["row", "wide"], ["all"]),
        helper.make_node("Concat", ["means", "all"], ["embedding"], axis=1),
        helper.make_node("Neg", ["embedding"], ["second"]),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [len(v)], v)
        for name, v in (("at", at), ("zero", [0]), ("two", [2]))
    ]
    given = helper.make_tensor_value_info("pixels", kind, shape)
    answers = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 5]) for name in ("embedding", "second")[:outputs]
    ]
    graph = helper.make_graph(nodes[: 11 + (outputs > 1)], "g", [given], answers, constants)
    return onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()


def arguments(**changes):
    given = dict(
        output=None,
        sizes=[48],
        colour="RGB",
        resize="bilinear",
        mean=None,
        std=None,
        fit="short",
        name="other",
        version="1",
    )
    return argparse.Namespace(**(given | dict(licence="MIT", source="a test", tolerance=0.01) | changes))


def test_bytes_of_free_size_are_described_with_their_aspect_ratio():
    weights = network()
    run = session(weights)
    manifest = adopt.manifest_of(weights, run, arguments())
    assert manifest["input"] == dict(
        name="pixels", sizes=[48], layout="NHWC", colour="RGB", resize="bilinear", type="uint8", fit="short"
    )
    assert manifest["dimensions"] == 5 and manifest["output"] == {"name": "embedding"}
    images = [photograph(1, 96, 72), photograph(2, 72, 96), photograph(3, 400, 20), photograph(4, 96, 72)]
    got = describe(run, images, manifest)
    for image, size, row in zip(images, ((64, 48), (48, 64), (192, 48), (64, 48)), got):
        expected = np.append(np.asarray(image.resize(size, Image.BILINEAR), np.float64).mean((0, 1)), size[::-1])
        assert np.allclose(row, expected / np.linalg.norm(expected), atol=1e-4)


def test_floats_get_mean_and_deviation_and_planes_in_the_colours_order():
    weights = network(TensorProto.FLOAT, ("n", 3, "h", "w"))
    manifest = adopt.manifest_of(
        weights, session(weights), arguments(fit="square", mean=[0.1, 0.2, 0.3], std=[0.5, 1.0, 2.0], colour="BGR")
    )
    assert manifest["input"]["layout"] == "NCHW" and "type" not in manifest["input"] and "fit" not in manifest["input"]
    seen = prepared(photograph(5, 48, 48), 48, manifest["input"])
    assert seen.shape == (3, 48, 48) and seen.dtype == np.float32
    pixel = np.asarray(photograph(5, 48, 48), np.float32)[7, 9] / 255
    assert np.allclose(seen[:, 7, 9], ((pixel - [0.1, 0.2, 0.3]) / [0.5, 1.0, 2.0])[::-1], atol=1e-6)


def test_a_network_that_no_manifest_describes_is_refused_with_the_reason():
    for weights, changes, words in (
        (network(TensorProto.DOUBLE), {}, "tensor\\(double\\)"),
        (network(shape=("n", "h", "w", 4)), {}, "the colours"),
        (network(outputs=2), {}, "2 outputs .*--output"),
        (network(), dict(output="logits"), "no output 'logits'"),
        (network(), dict(mean=[0, 0, 0]), "takes bytes"),
    ):
        with pytest.raises(adopt.AdoptError, match=words):
            adopt.manifest_of(weights, session(weights), arguments(**changes))
    assert adopt.manifest_of(network(outputs=2), session(network(outputs=2)), arguments(output="second"))["output"] == {
        "name": "second"
    }


def test_the_command_writes_a_folder(tmp_path, monkeypatch):
    (tmp_path / "net.onnx").write_bytes(network())
    given = [
        "adopt",
        str(tmp_path / "net.onnx"),
        str(tmp_path / "out"),
        "--name",
        "other",
        "--licence",
        "MIT",
        "--source",
        "x",
        "--sizes",
        "32",
        "--fit",
        "short",
    ]
    monkeypatch.setattr(sys, "argv", given)
    adopt.main()
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()
    assert '"fit": "short"' in (tmp_path / "out" / "manifest.json").read_text()
