"""Mutations of an ONNX graph that leave a well-formed protocol buffer."""

from collections.abc import Callable
from random import Random

import onnx
from onnx import ModelProto, TensorProto, helper

from lightweight.onnx.checksum import serialize

SIZES = (0, 1, 2, 3, 10, 784, 100_000, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -1, -2, -(2**63))
NAMES = ("", "input", "logits", "offset", "nowhere", "a\nb", "x" * 5000, "größer")
OPERATORS = (
    "Add", "Conv", "Gemm", "MatMul", "Reshape", "MaxPool", "Relu", "Expand", "Tile", "ConstantOfShape", "Identity",
    "QLinearConv", "DequantizeLinear", "QuantizeLinear", "Clip", "Resize", "Gather", "Slice", "Loop", "If", "Einsum",
    "DynamicQuantizeLinear", "MatMulInteger", "BatchNormalization", "Concat", "Squeeze", "NonZero", "Pad", "NoSuch",
)  # fmt: skip


def weight(model: ModelProto, random: Random) -> None:
    """The shape, type, data or name of a stored tensor."""
    tensor = random.choice(model.graph.initializer)
    match random.randrange(6):
        case 0 if tensor.dims:
            tensor.dims[random.randrange(len(tensor.dims))] = random.choice(SIZES)
        case 1:
            tensor.dims[:] = [random.choice(SIZES) for _ in range(random.randint(0, 5))]
        case 2:
            tensor.data_type = random.choice((*range(24), 100, -1))
        case 3:
            tensor.raw_data = random.choice((b"", tensor.raw_data[:-1], tensor.raw_data * 2, bytes(100)))
        case 4:
            tensor.name = random.choice((*NAMES, random.choice(model.graph.initializer).name))
        case 5:
            tensor.data_location = TensorProto.EXTERNAL
            tensor.ClearField("raw_data")
            location = random.choice(("/etc/passwd", "../../../../etc/passwd", "file.onnx", "/dev/zero", "", "a\nb"))
            tensor.external_data.add(key="location", value=location)
            if random.random() < 0.5:
                tensor.external_data.add(key="length", value=str(random.choice(SIZES)))


def shape_value(model: ModelProto, random: Random) -> None:
    """The numbers that a Reshape or the like takes."""
    found = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT64] or [None]
    tensor = random.choice(found)
    if tensor is not None:
        count = random.choice((0, 1, 2, 2, 2, 3, 8))
        values = [random.choice(SIZES) for _ in range(count)]
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.INT64, [count], values))


def attribute(model: ModelProto, random: Random) -> None:
    found = [attribute for node in model.graph.node for attribute in node.attribute]
    if not found:
        return
    chosen = random.choice(found)
    match random.randrange(4):
        case 0 if chosen.ints:
            chosen.ints[random.randrange(len(chosen.ints))] = random.choice(SIZES)
        case 1:
            chosen.ints[:] = [random.choice(SIZES) for _ in range(random.randint(0, 5))]
        case 2:
            chosen.i, chosen.f, chosen.s = random.choice(SIZES), random.choice((0.0, -1.0, 1e38)), b"NOSUCH"
        case 3:
            chosen.type = random.randrange(15)


def operator(model: ModelProto, random: Random) -> None:
    node = random.choice(model.graph.node)
    if random.random() < 0.8:
        node.op_type = random.choice(OPERATORS)
    node.domain = random.choice(("", "", "", "com.microsoft", "com.microsoft.nchwc", "nowhere"))
    if random.random() < 0.5:
        del node.attribute[:]


def edge(model: ModelProto, random: Random) -> None:
    """A node takes or gives another tensor, or fewer, which may close a cycle."""
    node = random.choice(model.graph.node)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)] + list(NAMES)
    side = random.choice((node.input, node.output))
    match random.randrange(3):
        case 0 if side:
            side[random.randrange(len(side))] = random.choice(names)
        case 1 if side:
            side.pop()
        case _:
            side.append(random.choice(names))


def nodes(model: ModelProto, random: Random) -> None:
    """A node is lost, doubled or moved."""
    graph = model.graph
    place = random.randrange(len(graph.node))
    node = onnx.NodeProto()
    node.CopyFrom(graph.node[place])
    if random.random() < 0.7:
        del graph.node[place]
    if random.random() < 0.7:
        others = list(graph.node)
        others.insert(random.randrange(len(others) + 1), node)
        del graph.node[:]
        graph.node.extend(others)


def interface(model: ModelProto, random: Random) -> None:
    """The inputs and outputs that the file declares."""
    item = random.choice([*model.graph.input, *model.graph.output])
    kind = item.type.tensor_type
    match random.randrange(5):
        case 0:
            item.name = random.choice(NAMES)
        case 1:
            kind.elem_type = random.randrange(24)
        case 2 if kind.shape.dim:
            random.choice(kind.shape.dim).dim_value = random.choice(SIZES)
        case 3:
            del kind.shape.dim[:]
        case 4:
            side = random.choice((model.graph.input, model.graph.output))
            side.extend([item]) if random.random() < 0.5 else side.pop()


def bomb(model: ModelProto, random: Random) -> None:
    """Few bytes that become a huge tensor, or a loop without an end, on the way to the logits."""
    size = random.choice((10**6, 10**8, 10**9, 10**11, 2**62))
    graph = model.graph
    values = {"size": [size], "pads": [0] * 6 + [size] * 2, "turns": [size], "axes": [0, 1, 2, 3]}
    graph.initializer.extend(helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in values.items())
    graph.initializer.append(helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]))
    graph.initializer.append(helper.make_tensor("float size", TensorProto.FLOAT, [1], [size]))
    for node in graph.node:
        node.output[:] = ["harmless" if name == "logits" else name for name in node.output]
    body = "body (int64 turn, bool go, float[1] x) => (bool again, float[1] y) { again = Identity(go) y = Sin(x) }"
    makers = [
        [helper.make_node("ConstantOfShape", ["size"], ["huge"])],
        [helper.make_node("Expand", ["one", "size"], ["huge"])],
        [helper.make_node("Pad", ["input", "pads"], ["huge"])],
        [helper.make_node("Loop", ["turns", "", "one"], ["huge"], body=onnx.parser.parse_graph(body))],
        [
            helper.make_node("ReduceMax", ["input", "axes"], ["pixel"], keepdims=0),
            helper.make_node("Add", ["pixel", "float size"], ["sum"]),
            helper.make_node("Cast", ["sum"], ["known when it runs"], to=TensorProto.INT64),
            helper.make_node("Expand", ["one", "known when it runs"], ["huge"]),
        ],
    ]
    graph.node.extend(random.choice(makers))
    graph.node.append(helper.make_node("ReduceMax", ["huge"], ["one number"], keepdims=0))
    graph.node.append(helper.make_node("Add", ["harmless", "one number"], ["logits"]))


def version(model: ModelProto, random: Random) -> None:
    match random.randrange(4):
        case 0:
            model.ir_version = random.choice((0, 1, 3, 11, 100, 2**62))
        case 1:
            random.choice(model.opset_import).version = random.choice((0, 1, 6, 13, 22, 25, 1000, 2**62))
        case 2:
            del model.opset_import[:]
        case 3:
            model.opset_import.add(domain=random.choice(("nowhere", "", "com.microsoft")), version=1)


def function(model: ModelProto, random: Random) -> None:
    """An operator becomes a function of the file itself, which may call itself or double with every level."""
    node = random.choice(model.graph.node)
    inside = random.choice((node.op_type, "Relu", "Identity"))
    called = helper.make_node(inside, list(node.input), list(node.output), domain=random.choice(("", "own")))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    model.functions.append(
        helper.make_function("own", node.op_type, list(node.input), list(node.output), [called], opsets)
    )
    model.opset_import.append(opsets[1])
    node.domain = "own"


CHANGES = (weight, shape_value, attribute, operator, edge, nodes, interface, bomb, version, function)


def _mutation(change: Callable[[ModelProto, Random], None]) -> Callable[[bytes, Random], bytes]:
    def mutate(content: bytes, random: Random) -> bytes:
        try:
            model = onnx.load_from_string(content)
            change(model, random)
            return serialize(model)
        except Exception:  # not valid any more, or nothing that a protocol buffer can hold
            return content

    mutate.__name__ = change.__name__
    return mutate


MUTATIONS = [_mutation(change) for change in CHANGES]
