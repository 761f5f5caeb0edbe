"""Trunks: picture → feature map. Each is an nn.Module with `stages` (run in order) and `channels` (of the last map)."""

from __future__ import annotations

import torch
from torch import nn

# (expansion, channels, blocks, stride of the first block): Sandler et al., CVPR 2018, table 2.
_MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, norm: bool, act: bool
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=not norm),
    ]
    if norm:
        layers.append(nn.BatchNorm2d(outputs))
    if act:
        layers.append(nn.ReLU6(inplace=True))
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand 1×1 → depthwise 3×3 → project 1×1, with a skip where shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, norm: bool):
        super().__init__()
        hidden = inputs * expansion
        layers = [_convolution(inputs, hidden, 1, 1, 1, norm, True)] if expansion != 1 else []
        layers += [
            _convolution(hidden, hidden, 3, stride, hidden, norm, True),
            _convolution(hidden, outputs, 1, 1, 1, norm, False),
        ]
        self.layers = nn.Sequential(*layers)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.skip else self.layers(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 1.0, (N, 3, S, S) → (N, 1280, S/32, S/32).

    `norm=False` has biased convolutions and no batch normalisation: the shape of weights whose normalisation was folded
    into them, and cheaper to train on a CPU. `norm=True` is for training from random weights. `last_stride=1` keeps the
    final map at S/16, as the paper does with ResNet's layer 4.
    """

    channels = 1280

    def __init__(self, norm: bool = False, last_stride: int = 2):
        super().__init__()
        stages = [_convolution(3, 32, 3, 2, 1, norm, True)]
        inputs = 32
        for number, (expansion, channels, blocks, stride) in enumerate(_MOBILENET_V2):
            if number == 5:
                stride = last_stride
            stage = []
            for block in range(blocks):
                stage.append(InvertedResidual(inputs, channels, stride if block == 0 else 1, expansion, norm))
                inputs = channels
            stages.append(nn.Sequential(*stage))
        stages.append(_convolution(320, self.channels, 1, 1, 1, norm, True))
        self.stages = nn.ModuleList(stages)
        # After the maps at 1/8 and 1/16, the counterparts of ResNet's layers 2 and 3.
        self.wave_after = (3, 5)

    def stage_channels(self, number: int) -> int:
        return [m for m in self.stages[number].modules() if isinstance(m, nn.Conv2d)][-1].out_channels

    def expansion_channels(self, number: int) -> int:
        """Channels between the first block's expansion and its depthwise convolution."""
        return self.stages[number][0].layers[0][0].out_channels

    def through_expansion(self, stage: nn.Sequential, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first block's expansion, which still has the previous stage's resolution, and the stage's output."""
        expanded = stage[0].layers[0](x)
        return expanded, stage[1:](stage[0].layers[1:](expanded))

    def convolutions(self) -> list[nn.Conv2d]:
        """In the order of the forward pass, which is the order of the operators in the TensorFlow Lite graph."""
        return [m for m in self.modules() if isinstance(m, nn.Conv2d)]


class ResNet50(nn.Module):
    """ResNet-50 with layer 4 at stride 1 (the paper): (N, 3, S, S) → (N, 2048, S/16, S/16). Random weights."""

    channels = 2048

    def __init__(self, last_stride: int = 1):
        super().__init__()
        from torchvision.models import resnet50

        net = resnet50(weights=None)
        block = net.layer4[0]
        block.conv2.stride = (last_stride, last_stride)
        block.downsample[0].stride = (last_stride, last_stride)
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.stages = nn.ModuleList([stem, net.layer1, net.layer2, net.layer3, net.layer4])
        self.wave_after = (2, 3)


def build_trunk(name: str, norm: bool, last_stride: int) -> nn.Module:
    if name == "mobilenet_v2":
        return MobileNetV2(norm, last_stride)
    if name == "resnet50":
        return ResNet50(last_stride)
    raise ValueError(f"trunk {name!r} is unknown; known: mobilenet_v2, resnet50")
