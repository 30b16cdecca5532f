"""What files have in common, which both sides learn before the first field: a typical graph and typical metadata.

This is part of the format: a change makes another version of it.
"""

import json
from collections.abc import Hashable
from typing import Any

import numpy as np
from onnx import helper

from lightweight.codec.numbers import FieldCoder
from lightweight.codec.probability import Predictor
from lightweight.codec.skeleton import Skeleton, code_skeleton

CONVOLUTION: dict[str, Any] = {
    "auto_pad": "NOTSET", "dilations": [1, 1], "group": 1, "kernel_shape": [3, 3], "strides": [1, 1],
}  # fmt: skip
SQUARE = "cropped to a square around the centre, resized: PIL.ImageOps.fit, bilinear"
METADATA = {
    "classes": json.dumps(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]),
    "input": json.dumps(
        {
            "type": "float32",
            "shape": ["N", 3, 32, 32],
            "values": "0 to 255",
            "colours": "RGB",
            "from_photographs": f"turned upright as EXIF says, {SQUARE}",
        }
    ),
}
DIGITS = {
    "classes": json.dumps([str(digit) for digit in range(10)]),
    "input": METADATA["input"].replace("3, 32, 32", "1, 28, 28").replace("RGB", "grey"),
}


class Listener:
    """Take the bits of a writer and write nothing, so that its predictor learns them."""

    reads = False

    def bit(self, probability: int, bit: int = 0) -> int:
        """Return the bit."""
        return bit

    def symbols(self, tables: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Refuse: a typical file has no tensors."""
        raise AssertionError("a typical file has no tensors")


def learn_typical(predictor: Predictor, last: dict[Hashable, int]) -> None:
    """Teach a predictor what graphs and metadata look like."""
    fields = FieldCoder(Listener())
    fields.predictor, fields.last = predictor, last
    for metadata in (METADATA, DIGITS):
        code_skeleton(fields, typical_skeleton())
        fields.text("metadata", json.dumps(metadata).encode())


def typical_skeleton() -> Skeleton:
    """Build the graph of convolutions, one of them beside an identity, a global average and a linear layer."""
    node, weights, value = helper.make_node, iter(range(99)), 0
    nodes = [node("Add", ["input", "w0"], ["v1"]), node("Mul", ["v1", "w1"], ["v2"])]
    next(weights), next(weights)
    value = 2
    for number in range(4):
        pads = {"pads": [1, 1, 1, 1] if number else [2, 2, 2, 2]}
        inputs = [f"v{value}", f"w{next(weights)}", f"w{next(weights)}"]
        nodes.append(node("Conv", inputs, [f"v{value + 1}"], **(CONVOLUTION | pads)))
        if number == 3:
            nodes.append(node("Add", [f"v{value + 1}", f"v{value - 2}"], [f"v{value + 2}"]))
            value += 1
        nodes.append(node("Relu", [f"v{value + 1}"], [f"v{value + 2}"]))
        value += 2
    mean, reshape, linear = (f"v{value + step}" for step in (1, 2, 3))
    nodes.append(node("ReduceMean", [f"v{value}", f"w{next(weights)}"], [mean], keepdims=1, noop_with_empty_axes=0))
    nodes.append(node("Reshape", [mean, f"w{next(weights)}"], [reshape], allowzero=0))
    inputs = [reshape, f"w{next(weights)}", f"w{next(weights)}"]
    nodes.append(node("Gemm", inputs, [linear], alpha=1.0, beta=1.0, transA=0, transB=1))
    for item in nodes:
        ordered = sorted(item.attribute, key=lambda attribute: attribute.name)
        del item.attribute[:]
        item.attribute.extend(ordered)
    return Skeleton(nodes, linear, 20, (3, 32, 32, 10))
