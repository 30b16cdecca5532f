"""The file `.lwz`: a network in one range-coded stream; its layout is described in docs/lwz.md.

b"LWZ", version (1 byte), CRC-32 of the stream (4 bytes, little-endian), stream
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from lightweight.codec.numbers import FieldCoder
from lightweight.codec.range_coder import Decoder, Encoder
from lightweight.codec.skeleton import Skeleton, build_model, code_skeleton, extract_skeleton, list_weights
from lightweight.codec.tensors import BY_SYMBOL, CodedTensor, Tensor, TensorCoder
from lightweight.codec.typical import learn_typical
from lightweight.core.files import FORMAT_KEY, FORMAT_VERSION
from lightweight.onnx.checksum import PRODUCER, serialize

MAGIC, VERSION = b"LWZ", 1
HEADER = len(MAGIC) + 1 + 4
LEFT_OUT = {FORMAT_KEY, "versions", "sha256"}  # of the metadata; the first and the last are made anew


@dataclass(frozen=True)
class PackedNetwork:
    """Hold what a file holds: a graph, its tensors in the order of their readers, and the metadata of the ONNX file."""

    skeleton: Skeleton
    tensors: Sequence[Tensor]
    metadata: Mapping[str, str]

    def to_onnx(self) -> bytes:
        """Build the ONNX file, in float32. Equal networks give equal bytes."""
        arrays = [item.values() if isinstance(item, CodedTensor) else item for item in self.tensors]
        weights = [numpy_helper.from_array(array, f"w{number}") for number, array in enumerate(arrays)]
        model = build_model(self.skeleton, weights)
        model.producer_name = PRODUCER
        for key, value in self.metadata.items():
            model.metadata_props.add(key=key, value=value)
        model.metadata_props.add(key=FORMAT_KEY, value=json.dumps(FORMAT_VERSION))
        return serialize(model)


def take_apart(model: onnx.ModelProto, coded: Mapping[str, CodedTensor]) -> PackedNetwork:
    """Take a model apart, with the integers `coded` in the place of initializers of these names; others stay exact.

    Raises ValueError for a graph that the format cannot hold.
    """
    arrays = {item.name: item for item in model.graph.initializer}
    tensors = [coded.get(name, None) for name in list_weights(model)]
    exact = [numpy_helper.to_array(arrays[name]) for name in list_weights(model)]
    metadata = {item.key: item.value for item in model.metadata_props if item.key not in LEFT_OUT}
    kept = [array if tensor is None else tensor for tensor, array in zip(tensors, exact, strict=True)]
    return PackedNetwork(extract_skeleton(model), kept, metadata)


def pack(network: PackedNetwork) -> bytes:
    """Return the bytes of the file of a network."""
    encoder = Encoder()
    _code(FieldCoder(encoder), network)
    stream = encoder.content()
    return MAGIC + bytes([VERSION]) + zlib.crc32(stream).to_bytes(4, "little") + stream


def unpack(content: bytes) -> PackedNetwork:
    """Read the bytes of a file. Raises ValueError for bytes that are not those that `pack` wrote."""
    if content[:3] != MAGIC or len(content) < HEADER:
        raise ValueError("is not a .lwz file")
    if content[3] != VERSION:
        raise ValueError(f"is of version {content[3]} of the format: must be {VERSION}")
    if zlib.crc32(content[HEADER:]) != int.from_bytes(content[4:HEADER], "little"):
        raise ValueError("is cut off or damaged: its content is not that of its checksum")
    return _code(FieldCoder(Decoder(content[HEADER:])))


def _code(fields: FieldCoder, given: PackedNetwork | None = None) -> PackedNetwork:
    """Write a network, or read one."""
    learn_typical(fields.predictor, fields.last)
    skeleton = code_skeleton(fields, given.skeleton if given else None)
    text = json.dumps(dict(given.metadata), ensure_ascii=False) if given else ""
    metadata = json.loads(fields.text("metadata", text.encode()))
    size = sum(np.size(t.integers) for t in given.tensors if isinstance(t, CodedTensor)) if given else 0
    by_symbol = fields.natural("by symbol", int(size <= BY_SYMBOL))
    coder = TensorCoder(fields, bool(by_symbol))
    number = fields.natural("tensors", len(given.tensors) if given else 0)
    tensors = [coder.code(given.tensors[place] if given else None) for place in range(number)]
    return PackedNetwork(skeleton, tensors, metadata)
