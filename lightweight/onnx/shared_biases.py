"""Biases that several nodes of an ONNX graph share, under names that ONNX Runtime's quantizer does not mix up."""

from collections import Counter

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import onnx
from onnxruntime.quantization.onnx_model import ONNXModel


def rename_shared_biases(model: onnx.ModelProto) -> None:
    """Rename the biases that several nodes read if ONNX Runtime would give a copy of them the name of another tensor.

    Its static quantizer copies such a bias for each further node, and appends a number to the name: of `val_12`, which
    all GroupNorm layers share, the fifth copy is `val_124`. Names that do not clash stay as they are.
    """
    readers = Counter(node.input[2] for node in model.graph.node if len(node.input) > 2)
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    names = ONNXModel(model)
    for item in model.graph.initializer:
        first = names.get_largest_initializer_name_suffix(item.name) + 1
        if taken.isdisjoint(f"{item.name}{number}" for number in range(first, first + readers[item.name] - 1)):
            continue
        renamed = f"{item.name}_shared"
        while any(name.startswith(renamed) for name in taken):
            renamed += "_"
        names.replace_input_of_all_nodes(item.name, renamed)
        item.name = renamed
