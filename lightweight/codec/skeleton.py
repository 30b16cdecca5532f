"""Code the graph of an ONNX model without its weights: operators, their attributes, and which values they read.

Values are counted instead of named: an input is the number of values between it and the node. Weights are counted in
the order in which nodes read them. What can be an operator or an attribute is a number of a list, or its name.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, helper

from lightweight.codec.numbers import FieldCoder

# Both lists are part of the format: names may be added at their ends and never change places.
OPERATORS = (
    "", "Conv", "Relu", "Add", "Mul", "Gemm", "MatMul", "ReduceMean", "Reshape", "MaxPool", "AveragePool",
    "GlobalAveragePool", "Flatten", "Concat", "Split", "Slice", "Pad", "Transpose", "Clip", "Sigmoid", "HardSigmoid",
    "HardSwish", "Softmax", "LayerNormalization", "BatchNormalization", "Gelu", "Erf", "Sub", "Div", "Sqrt", "Pow",
    "Expand", "Gather", "Squeeze", "Unsqueeze", "Resize", "Identity", "Tanh", "LeakyRelu", "PRelu", "Shape", "Cast",
    "GroupNormalization", "InstanceNormalization", "ConvTranspose", "ReduceSum", "DepthToSpace", "SpaceToDepth",
)  # fmt: skip
ATTRIBUTES = (
    "", "group", "pads", "auto_pad", "strides", "dilations", "kernel_shape", "alpha", "beta", "transA", "transB",
    "axis", "axes", "keepdims", "noop_with_empty_axes", "allowzero", "ceil_mode", "count_include_pad", "storage_order",
    "perm", "num_outputs", "mode", "epsilon", "momentum", "approximate", "to", "stash_type", "training_mode", "start",
    "end",
)  # fmt: skip
MOST = 1 << 20  # nodes, inputs, values of an attribute


@dataclass(frozen=True)
class Skeleton:
    """Hold the graph of a classifier: values are named input, v1, v2, ..., weights w0, w1, ... as they are read."""

    nodes: Sequence[onnx.NodeProto]
    output: str
    opset: int
    shape: tuple[int, ...]  # channels, height and width of images, and number of classes


def list_weights(model: onnx.ModelProto) -> list[str]:
    """List the names of a model's initializers in the order in which its nodes first read them."""
    known = {item.name for item in model.graph.initializer}
    return list(dict.fromkeys(name for node in model.graph.node for name in node.input if name in known))


def extract_skeleton(model: onnx.ModelProto) -> Skeleton:
    """Take the graph of a model of one input and one output. Raises ValueError for operators beyond the standard."""
    graph = model.graph
    if {item.domain for item in model.opset_import} - {"", "ai.onnx"} or model.functions:
        raise ValueError("has operators that are not of the ONNX standard")
    names = {name: f"w{number}" for number, name in enumerate(list_weights(model))}
    values = [graph.input[0].name, *(name for node in graph.node for name in node.output if name)]
    names |= {name: f"v{number}" if number else "input" for number, name in enumerate(values)} | {"": ""}
    nodes = []
    for node in graph.node:
        copy = onnx.NodeProto(op_type=node.op_type)
        copy.attribute.extend(sorted(node.attribute, key=lambda item: item.name))
        copy.input.extend(names[name] for name in node.input)
        copy.output.extend(names[name] for name in node.output)
        nodes.append(copy)
    image, logits = (value.type.tensor_type.shape.dim for value in (graph.input[0], graph.output[0]))
    shape = tuple(size.dim_value for size in (*list(image)[1:], logits[1]))
    return Skeleton(nodes, names[graph.output[0].name], model.opset_import[0].version, shape)


def build_model(skeleton: Skeleton, weights: Iterable[onnx.TensorProto]) -> onnx.ModelProto:
    """Build the model of a graph and its weights w0, w1, ..."""
    *image, classes = skeleton.shape
    inputs = [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", *image])]
    outputs = [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", classes])]
    graph = helper.make_graph(list(skeleton.nodes), "classifier", inputs, outputs, list(weights))
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = ["logits" if name == skeleton.output else name for name in names]
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", skeleton.opset)], ir_version=10)


def code_skeleton(fields: FieldCoder, given: Skeleton | None = None) -> Skeleton:
    """Write a skeleton, or read one. Raises ValueError for one that no encoder wrote."""
    given = given or Skeleton((), "input", 0, (0, 0, 0, 0))
    opset = fields.natural("opset", given.opset)
    shape = tuple(fields.natural(("shape", place), size) for place, size in enumerate(given.shape))
    values, weights, before = ["input"], 0, ""
    nodes: list[onnx.NodeProto] = []
    for node in _items(fields, "nodes", given.nodes):
        node = node or onnx.NodeProto()
        found = onnx.NodeProto(op_type=_name(fields, "operator", OPERATORS, node.op_type, before))
        kind = before = found.op_type
        for place, name in enumerate(_items(fields, ("inputs", kind), node.input)):
            found.input.append(_input(fields, (kind, place), name or "", values, weights))
            weights = max(weights, int(found.input[-1][1:]) + 1) if found.input[-1].startswith("w") else weights
        for name in _items(fields, ("outputs", kind), node.output):
            if fields.natural("output is left out", int(name == "")):
                found.output.append("")
                continue
            found.output.append(f"v{len(values)}")
            values.append(found.output[-1])
        for attribute in _items(fields, ("attributes", kind), node.attribute):
            found.attribute.append(_attribute(fields, kind, attribute or AttributeProto()))
        nodes.append(found)
    return Skeleton(nodes, _value(fields, "output", given.output, values), opset, shape)


def _items(fields: FieldCoder, kind: object, given: Sequence[object]) -> Sequence:
    """Code how many items follow; return those that are given, or as many times None."""
    number = fields.natural(kind, len(given))
    if number > MOST:
        raise ValueError(f"has {number:,} {kind}")
    return given if not fields.reads else [None] * number


def _name(fields: FieldCoder, kind: str, known: Sequence[str], given: str, context: str) -> str:
    """Code a name by its number among those that are known, else by its letters."""
    number = fields.natural(kind, known.index(given) if given in known else 0, context)
    if number >= len(known):
        raise ValueError(f"has {kind} {number}, of a newer version")
    return known[number] or fields.text(kind, given.encode()).decode()


def _input(fields: FieldCoder, context: object, given: str, values: Sequence[str], weights: int) -> str:
    """Code what a node reads: 0 nothing, 1 the next weight, 2 a weight that was read before, 3 a value."""
    number = int(given[1:]) if given.startswith("w") else 0
    sort = 0 if not given else 3 if not given.startswith("w") else 1 if number == weights else 2
    sort = fields.natural("input", sort, context)
    if sort == 0:
        return ""
    if sort == 1:
        return f"w{weights}"
    if sort == 2:
        number = fields.natural("weight again", number)
        if number >= weights:
            raise ValueError("has a weight that no node has read before")
        return f"w{number}"
    return _value(fields, context, given, values)


def _value(fields: FieldCoder, context: object, given: str, values: Sequence[str]) -> str:
    """Code a value by the number of values that came after it."""
    place = 0 if fields.reads or given == "input" else int(given[1:])
    back = fields.natural("value", len(values) - 1 - place, context)
    if back >= len(values):
        raise ValueError("has a value before the first")
    return values[len(values) - 1 - back]


def _attribute(fields: FieldCoder, operator: str, given: AttributeProto) -> AttributeProto:
    """Code an attribute of a node: an integer, a number, a text, a tensor, or several integers or numbers."""
    name = _name(fields, "attribute", ATTRIBUTES, given.name, operator)
    kind = (operator, name)
    sort = fields.natural("type", given.type, kind)
    found = AttributeProto(name=name)
    found.type = sort  # type: ignore[assignment]
    match sort:
        case AttributeProto.INT:
            found.i = fields.whole(kind, given.i)
        case AttributeProto.INTS:
            for place, value in enumerate(_items(fields, (*kind, "number"), given.ints)):
                found.ints.append(fields.whole(kind, value or 0, place))
        case AttributeProto.FLOAT:
            found.f = _number(fields, kind, given.f)
        case AttributeProto.FLOATS:
            found.floats.extend(_number(fields, kind, value or 0.0) for value in _items(fields, kind, given.floats))
        case AttributeProto.STRING:
            found.s = fields.text(kind, given.s)
        case AttributeProto.TENSOR:
            found.t.ParseFromString(fields.text(kind, given.t.SerializeToString(deterministic=True)))
        case _:
            raise ValueError(f"has an attribute {name!r} of {operator} of another type than numbers and texts")
    return found


def _number(fields: FieldCoder, kind: object, given: float) -> float:
    """Code a float32 number by its 32 bits."""
    bits = fields.natural((kind, "number"), struct.unpack("<I", struct.pack("<f", given))[0])
    if bits >> 32:
        raise ValueError("has a number of more than 32 bits")
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])
