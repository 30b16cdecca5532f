"""Streams of channels in an ONNX graph that can be scaled without a change of what the network computes.

A stream is all that a channel passes between the layers that write it and those that read it: activations such as ReLU,
pools and residual sums, of which f(s x) = s f(x) for s > 0. Multiplied by s where it is written and divided by s where
it is read, a channel changes in size and the logits do not (Nagel et al. 2019, cross-layer equalization).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

LAYERS = {"Conv", "Gemm", "MatMul"}
HOMOGENEOUS = {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Dropout", "Clip"}
SPATIAL = {(2, 3), (-2, -1), (-1, -2), (3, 2)}


@dataclass
class Stream:
    """Hold the names of tensors, the layers that write and that read them, and Clip nodes between, of `channels`."""

    tensors: list[str] = field(default_factory=list)
    writers: list[NodeProto] = field(default_factory=list)
    readers: list[NodeProto] = field(default_factory=list)
    clips: list[NodeProto] = field(default_factory=list)
    channels: int = 0
    obstacle: str = ""  # why the channels cannot be scaled


def find_streams(model: onnx.ModelProto) -> list[Stream]:
    """Find the streams that at least one layer writes, in the order of the graph, those that cannot be scaled, too."""
    graph = _Graph(model)
    streams: dict[str, Stream] = {}
    for node in model.graph.node:
        for name in (*node.input, *node.output):
            if name and name not in graph.constants:
                stream = streams.setdefault(graph.find(name), Stream())
                if name not in stream.tensors:
                    stream.tensors.append(name)
                _add_node(stream, node, name, graph)
    for name in graph.ends & graph.parents.keys():
        streams[graph.find(name)].obstacle = "the network takes or gives it"
    found = [stream for stream in streams.values() if stream.writers]
    for stream in found:
        sizes = {graph.constants[node.input[1]].shape[graph.outputs_axis(node)] for node in stream.writers}
        stream.channels = max(sizes)
        if len(sizes) > 1 or not stream.readers:
            stream.obstacle = stream.obstacle or "no layer reads all of its channels"
    return found


def _add_node(stream: Stream, node: NodeProto, name: str, graph: "_Graph") -> None:
    """Note what a node does to a tensor of a stream."""
    if node.op_type in LAYERS and graph.is_layer(node):
        side = stream.writers if name in node.output else stream.readers
        if all(other is not node for other in side):
            side.append(node)
    elif not graph.passes(node):
        stream.obstacle = stream.obstacle or f"{node.op_type} does not let a scale pass"
    elif node.op_type == "Clip" and all(other is not node for other in stream.clips):
        stream.clips.append(node)


class _Graph:
    """Know the constants of a graph, and join the tensors that nodes let pass by one name for each stream."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
        self.ends = {item.name for item in (*model.graph.input, *model.graph.output)}
        self.readers: dict[str, int] = {}
        self.parents: dict[str, str] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers[name] = self.readers.get(name, 0) + 1
        for node in model.graph.node:
            if node.op_type not in LAYERS and self.passes(node):
                for name in self._activations(node):
                    self.parents[self.find(name)] = self.find(node.output[0])

    def find(self, name: str) -> str:
        """Find the name of the stream of a tensor."""
        while self.parents.setdefault(name, name) != name:
            name = self.parents[name]
        return name

    def _activations(self, node: NodeProto) -> Iterator[str]:
        return (name for name in node.input if name and name not in self.constants)

    def is_layer(self, node: NodeProto) -> bool:
        """Return whether a node has a float32 weight and, if any, a bias, which no other node reads."""
        stored = [name for name in node.input[1:] if name]
        given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
        own = all(name in self.constants and self.readers[name] == 1 for name in stored)
        return plain and own and all(self.constants[name].dtype == np.float32 for name in stored)

    def outputs_axis(self, node: NodeProto) -> int:
        """Return the axis of a layer's weight that counts its outputs."""
        return 0 if node.op_type == "Conv" or _attribute(node, "transB", 0) else 1

    def passes(self, node: NodeProto) -> bool:
        """Return whether a scale of a channel passes a node: f(s x) = s f(x), where Clip does not clip from above."""
        kind = node.op_type
        if kind in ("Add", "Sum"):
            return all(name not in self.constants for name in node.input)
        if kind == "Pad":
            value = self.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
            return _attribute(node, "mode", b"constant") == b"constant" and value is not None and not value.any()
        if kind == "ReduceMean":
            axes = self.constants.get(node.input[1]) if len(node.input) > 1 else _attribute(node, "axes", [])
            return axes is not None and tuple(int(axis) for axis in axes) in SPATIAL
        if kind == "Flatten":
            return _attribute(node, "axis", 1) == 1
        if kind == "Reshape":
            shape = self.constants.get(node.input[1])
            return shape is not None and shape.size == 2
        if kind == "Clip":
            low = self.constants.get(node.input[1]) if len(node.input) > 1 else None
            return low is not None and float(low) == 0
        return kind in HOMOGENEOUS


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)
