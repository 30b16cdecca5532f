"""Integer weights of a trained network get the names that ONNX Runtime's quantizer gives to integer weights.

PyTorch's exporter calls them `model.graph._frozen_param0`, and writes equal weights of several layers once. Reports and
`max_drop` know a layer by the name of its weight, so every file holds `model.LAYER.weight_quantized`, with `_scale` and
`_zero_point` in place of `_quantized`.
"""

from collections.abc import Sequence

import onnx

from lightweight.onnx.weights import MULTIPLICATIONS


def rename_weights(model: onnx.ModelProto, layers: Sequence[str]) -> None:
    """Rename the integer weights, scales and zero points of the named layers, in the order of the graph, in place.

    Float tensors lose the name of the module that only holds the graph.
    """
    initializers = {item.name: item for item in model.graph.initializer}
    for layer, dequantizer in zip(layers, _separate_dequantizers(model), strict=True):
        for place, suffix in enumerate(("quantized", "scale", "zero_point")):
            renamed = onnx.TensorProto()
            renamed.CopyFrom(initializers[dequantizer.input[place]])  # layers of equal width share their zero points
            renamed.name = dequantizer.input[place] = f"model.{layer}.weight_{suffix}"
            model.graph.initializer.append(renamed)
    used = {name for node in model.graph.node for name in node.input}
    kept = [item for item in model.graph.initializer if item.name in used]
    del model.graph.initializer[:]
    for item in kept:
        item.name = _without_module(item.name)
    model.graph.initializer.extend(kept)
    for node in model.graph.node:
        node.input[:] = map(_without_module, node.input)


def _separate_dequantizers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """List the DequantizeLinear node of every integer weight, after giving each layer one of its own."""
    stored = {item.name for item in model.graph.initializer}
    writers = {node.output[0]: node for node in model.graph.node if node.op_type in ("DequantizeLinear", "Transpose")}
    dequantizers: list[onnx.NodeProto] = []
    for node in [node for node in model.graph.node if node.op_type in MULTIPLICATIONS]:
        reader, writer = node, writers.get(node.input[1])
        while writer is not None and writer.op_type == "Transpose":
            reader, writer = writer, writers.get(writer.input[0])
        if writer is None or writer.input[0] not in stored:
            continue
        if any(writer is other for other in dequantizers):
            writer = _copy_for(node, writer, reader, model)
        dequantizers.append(writer)
    return dequantizers


def _copy_for(
    node: onnx.NodeProto, writer: onnx.NodeProto, reader: onnx.NodeProto, model: onnx.ModelProto
) -> onnx.NodeProto:
    """Insert a copy of `writer` for `node` alone, behind it one of the Transpose `reader` if that lies between them."""
    target, place = node, 1
    nodes = list(model.graph.node)
    for original in (reader, writer) if reader is not node else (writer,):
        copy = onnx.NodeProto()
        copy.CopyFrom(original)
        copy.name, copy.output[0] = f"{original.name}_{node.name}", f"{original.output[0]}_{node.name}"
        target.input[place] = copy.output[0]
        model.graph.node.insert(nodes.index(writer), copy)
        target, place = model.graph.node[nodes.index(writer)], 0
    return target


def _without_module(name: str) -> str:
    """Remove the name that the graph has in `FxModule` from the name of a tensor."""
    return name.replace("model.graph.", "model.", 1)
