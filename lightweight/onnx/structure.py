"""The structure of an ONNX file, which is checked before it runs: it may be damaged or come from elsewhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import FunctionProto, GraphProto, SparseTensorProto, TensorProto

from lightweight.core.files import FORMAT_KEY, check_format
from lightweight.onnx.checksum import check_checksum


def check_structure(content: bytes, path: Path) -> bool:
    """Check that a model is one fixed graph, from (N, C, H, W) to (N, classes), with all of its weights.

    ONNX Runtime would read other files that the model names, and run loops without end. Returns whether the file has a
    checksum. Raises ValueError.
    """
    model = onnx.load_from_string(content)
    graph = model.graph
    metadata = {item.key: item.value for item in model.metadata_props}
    check_format(path, json.loads(metadata.get(FORMAT_KEY, "0")))
    has_checksum = check_checksum(content, model.producer_name, metadata)
    parts = list(_walk(model))
    tensors = (part for part in parts if isinstance(part, TensorProto))
    if any(tensor.data_location == TensorProto.EXTERNAL or tensor.external_data for tensor in tensors):
        raise ValueError("names other files")
    if any(isinstance(part, FunctionProto) or (isinstance(part, GraphProto) and part is not graph) for part in parts):
        raise ValueError("has functions or graphs within its graph")
    if any(isinstance(part, SparseTensorProto) for part in parts):
        raise ValueError("has sparse tensors")
    for values, name, rank in ((graph.input, "input", 4), (graph.output, "logits", 2)):
        shapes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in values}
        sizes = shapes.get(name, [])
        if len(values) != 1 or len(sizes) != rank or sizes[0] or not all(0 < size <= 2**16 for size in sizes[1:]):
            raise ValueError(f"must have one {name!r} of {rank} dimensions, the first without a size, has {shapes}")
    onnx.checker.check_model(model, full_check=True)
    return has_checksum


def _walk(message: Any) -> Iterator[Any]:
    """Yield a message and all messages within, wherever a tensor may stand: also in fields that nothing should use."""
    yield message
    for field, value in message.ListFields():
        if field.message_type:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _walk(part)
