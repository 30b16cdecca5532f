"""One layer of an ONNX file: what it stores and what the runtime executes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """Hold the number of weights and of nonzero ones, bits per weight, MACs per image, and whether it runs in int8.

    `int8` says whether ONNX Runtime executes the layer on 8-bit integers. A product of two activations has no weights.
    """

    name: str
    weights: int
    nonzero: int
    bits: int
    macs: int
    int8: bool
