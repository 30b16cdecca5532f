"""Integer weights that PyTorch has exported bear the names that ONNX Runtime's own quantizer would give them."""

import onnx

from lightweight.onnx.graph import MULTIPLY


def name_weights(model: onnx.ModelProto, names: list[str]) -> None:
    """Give integer weights, scales and zero points the names that ONNX Runtime's quantizer gives them, in place."""
    held = {item.name: item for item in model.graph.initializer}
    writers = {node.output[0]: node for node in model.graph.node if node.op_type in ("DequantizeLinear", "Transpose")}
    found: list[onnx.NodeProto] = []
    for node in [node for node in model.graph.node if node.op_type in MULTIPLY]:
        reader, writer = node, writers.get(node.input[1])
        while writer is not None and writer.op_type == "Transpose":
            reader, writer = writer, writers.get(writer.input[0])
        if writer is None or writer.input[0] not in held:
            continue
        if any(writer is other for other in found):  # the exporter makes one of equal weights
            writer = _copy_for(node, writer, reader, model)
        found.append(writer)
    for name, node in zip(names, found, strict=True):
        for place, suffix in enumerate(("quantized", "scale", "zero_point")):
            own = onnx.TensorProto()
            own.CopyFrom(held[node.input[place]])  # layers of equal width share their zero points
            own.name = node.input[place] = f"model.{name}.weight_{suffix}"
            model.graph.initializer.append(own)
    used = {name for node in model.graph.node for name in node.input}
    left = [item for item in model.graph.initializer if item.name in used]
    del model.graph.initializer[:]
    for item in left:
        item.name = _short(item.name)
    model.graph.initializer.extend(left)
    for node in model.graph.node:
        node.input[:] = map(_short, node.input)


def _copy_for(
    node: onnx.NodeProto, writer: onnx.NodeProto, reader: onnx.NodeProto, model: onnx.ModelProto
) -> onnx.NodeProto:
    """A copy of `writer` for `node` alone, behind it one of the Transpose `reader` if that lies between them."""
    source, place = node, 1
    nodes = list(model.graph.node)
    for original in (reader, writer) if reader is not node else (writer,):
        copy = onnx.NodeProto()
        copy.CopyFrom(original)
        copy.name, copy.output[0] = f"{original.name}_{node.name}", f"{original.output[0]}_{node.name}"
        source.input[place] = copy.output[0]
        model.graph.node.insert(nodes.index(writer), copy)
        source, place = model.graph.node[nodes.index(writer)], 0
    return source


def _short(name: str) -> str:
    """Without the module that only holds the graph."""
    return name.replace("model.graph.", "model.", 1)
