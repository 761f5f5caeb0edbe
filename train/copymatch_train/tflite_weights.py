"""Read the convolution weights of an int8 TensorFlow Lite MobileNetV2 back to float32, as an initialisation.

Batch normalisation is folded into these weights; they are per-channel int8 (scale · (q − zero)), biases int32.
TensorFlow pads stride-2 convolutions at the far side, PyTorch at both: the same filter on a grid shifted by a pixel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .trunks import MobileNetV2

# TensorFlow Lite TensorType codes that hold weights here.
_INT8, _INT32 = 9, 2


def _dequantise(model, graph, index: int) -> np.ndarray:
    tensor = graph.Tensors(index)
    kind = tensor.Type()
    if kind not in (_INT8, _INT32):
        raise ValueError(f"tensor {tensor.Name()!r} has type {kind}; int8 or int32 expected")
    raw = model.Buffers(tensor.Buffer()).DataAsNumpy()
    values = raw.view(np.int8 if kind == _INT8 else np.int32).astype(np.float32).reshape(tensor.ShapeAsNumpy())
    quantization = tensor.Quantization()
    scale = quantization.ScaleAsNumpy().astype(np.float32)
    zero = quantization.ZeroPointAsNumpy().astype(np.float32)
    shape = [1] * values.ndim
    shape[quantization.QuantizedDimension()] = -1
    return (values - zero.reshape(shape)) * scale.reshape(shape)


def load_mobilenet_v2(trunk: MobileNetV2, path: str | Path) -> None:
    """Fill `trunk` (norm=False) from the file; every convolution must find its operator in order and in shape."""
    import tflite

    data = Path(path).read_bytes()
    model = tflite.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    wanted = {tflite.BuiltinOperator.CONV_2D, tflite.BuiltinOperator.DEPTHWISE_CONV_2D}
    operators = []
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if kind in wanted:
            operators.append((operator, kind == tflite.BuiltinOperator.DEPTHWISE_CONV_2D))
    convolutions = trunk.convolutions()
    # The last operator of the file is the classifier, which the trunk has no place for.
    if len(operators) != len(convolutions) + 1:
        raise ValueError(f"{path}: {len(operators)} convolutions, the trunk wants {len(convolutions)} and a classifier")
    with torch.no_grad():
        for convolution, (operator, depthwise) in zip(convolutions, operators):
            inputs = operator.InputsAsNumpy()
            weight = _dequantise(model, graph, inputs[1])
            # TensorFlow Lite: (out, h, w, in), depthwise (1, h, w, channels).
            weight = weight.transpose(3, 0, 1, 2) if depthwise else weight.transpose(0, 3, 1, 2)
            if weight.shape != tuple(convolution.weight.shape):
                raise ValueError(
                    f"{path}: weight of shape {weight.shape} where the trunk wants {tuple(convolution.weight.shape)}"
                )
            convolution.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
            convolution.bias.copy_(torch.from_numpy(_dequantise(model, graph, inputs[2])))
