"""One layer of an ONNX file: what it stores and what the runtime executes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """Hold the weights of a layer and how many are not zero, the bits of each, the MACs per image, and the precision.

    `int8` says whether ONNX Runtime executes the layer on 8-bit integers. A product of two activations has no weights.
    """

    name: str
    weights: int
    nonzero: int
    bits: int
    macs: int
    int8: bool
