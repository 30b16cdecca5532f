"""Read a compact network as a sequence of convolutions, each with its activation and pooling."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from lightweight.codec.container import PackedNetwork
from lightweight.codec.tensors import CodedTensor, Tensor
from lightweight.core.errors import InputError


@dataclass(frozen=True)
class Step:
    """Hold a convolution of stride and padding, whether ReLU follows, and a pooling of windows; sizes are in pixels.

    A linear layer is the convolution whose kernel is as large as its input.
    """

    size: tuple[int, int, int]  # of the input: channels, height, width
    integers: np.ndarray  # weights (M, C, height, width), each times the scale of its channel
    codes: np.ndarray  # of the scales (M,)
    biases: np.ndarray  # float32 (M,)
    stride: int = 1
    pad: int = 0
    relu: bool = False
    pool: str = "none"  # max, of windows | mean, of all positions
    window: int = 1
    window_stride: int = 1

    @property
    def convolved(self) -> tuple[int, int]:
        """Height and width before pooling."""
        sides = zip(self.size[1:], self.integers.shape[2:], strict=True)
        height, width = ((side + 2 * self.pad - kernel) // self.stride + 1 for side, kernel in sides)
        return height, width

    @property
    def output(self) -> tuple[int, int, int]:
        """Channels, height and width of the output."""
        height, width = self.convolved
        if self.pool == "mean":
            height = width = 1
        elif self.pool == "max":
            height, width = ((side - self.window) // self.window_stride + 1 for side in (height, width))
        return len(self.integers), height, width


@dataclass(frozen=True)
class Sequence:
    """Hold what is taken from pixels, by colour, what they are then multiplied by, and the steps that follow."""

    mean: np.ndarray
    factor: np.ndarray
    steps: list[Step]


def read_sequence(network: PackedNetwork) -> Sequence:
    """Read the graph of a network. Raises InputError for one that is no sequence of these layers."""
    nodes, (channels, height, width, _) = list(network.skeleton.nodes), network.skeleton.shape
    tensors = {f"w{number}": tensor for number, tensor in enumerate(network.tensors)}
    for node, before in zip(nodes, [None, *nodes], strict=False):
        others = [name for name in node.input[1:] if name and name not in tensors]
        if before and (node.input[0] != before.output[0] or others):
            raise InputError(f"The network is no sequence of layers: {node.op_type} reads what came before the last")
    if [node.op_type for node in nodes[:2]] != ["Add", "Mul"]:
        raise InputError("The network does not begin with the normalisation of pixels")
    summand, factor = (np.broadcast_to(_values(tensors[node.input[1]]).ravel(), (channels,)) for node in nodes[:2])
    steps: list[Step] = []
    for node in nodes[2:]:
        weights = [tensors[name] for name in node.input[1:] if name]
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        size = steps[-1].output if steps else (channels, height, width)
        if node.op_type in ("Conv", "Gemm"):
            steps.append(_read_layer(node, weights, attributes, size))
        elif node.op_type in ("Flatten", "Reshape"):
            continue  # the order of the values stays
        elif steps and (changes := _read_other(node, weights, attributes, steps[-1])) is not None:
            steps[-1] = replace(steps[-1], **changes)
        else:
            raise _unknown(node)
    return Sequence(-np.asarray(summand, np.float64), np.asarray(factor, np.float64), steps)


def _read_layer(
    node: onnx.NodeProto, weights: list[Tensor], attributes: dict[str, Any], size: tuple[int, int, int]
) -> Step:
    """Read a convolution or a linear layer."""
    coded = weights[0]
    if not isinstance(coded, CodedTensor) or coded.axis or (node.op_type == "Gemm" and not attributes.get("transB")):
        raise _unknown(node)
    shape = coded.integers.shape if coded.integers.ndim == 4 else (len(coded.integers), *size)
    codes = np.broadcast_to(coded.codes, shape[:1])
    given = _values(weights[1]) if len(weights) > 1 else np.zeros(shape[0])
    strides, pads = attributes.get("strides", [1]), attributes.get("pads", [0])
    plain = attributes.get("group", 1) == 1 and set(attributes.get("dilations", [1])) == {1}
    if len(set(strides)) > 1 or len(set(pads)) > 1 or not plain or coded.integers.size != np.prod(shape):
        raise _unknown(node)
    return Step(size, coded.integers.reshape(shape), codes, np.asarray(given, np.float64), strides[0], pads[0])


def _read_other(
    node: onnx.NodeProto, weights: list[Tensor], attributes: dict[str, Any], step: Step
) -> dict[str, Any] | None:
    """Read what follows a convolution as changes of its step; None for what a step cannot hold."""
    match node.op_type:
        case "Relu" if step.pool != "mean":
            return {"relu": True}
        case "ReduceMean" if step.relu and step.pool == "none" and set(_values(weights[0]).tolist()) == {-1, -2}:
            return {"pool": "mean"}
        case "GlobalAveragePool" if step.relu and step.pool == "none":
            return {"pool": "mean"}
        case "MaxPool" if step.pool == "none" and not any(attributes.get("pads", [])) | attributes.get("ceil_mode", 0):
            sizes, strides = set(attributes["kernel_shape"]), set(attributes.get("strides", [1]))
            if len(sizes) == len(strides) == 1 and set(attributes.get("dilations", [1])) == {1}:
                return {"pool": "max", "window": sizes.pop(), "window_stride": strides.pop()}
    return None


def _values(tensor: Tensor) -> np.ndarray:
    return tensor.values() if isinstance(tensor, CodedTensor) else tensor


def _unknown(node: onnx.NodeProto) -> InputError:
    rule = "convolutions, linear layers, ReLU, max-pooling and a mean over all positions, one after the other"
    return InputError(f"The network has a layer {node.op_type} that C code cannot be written for: it takes {rule}")
