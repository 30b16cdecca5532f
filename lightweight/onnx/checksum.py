"""The checksum of an ONNX file: a SHA-256 in its metadata, by which every reader finds a flipped bit.

It is that of all bytes of the file, with zeros in the place of its own 64 digits:

    content = open("model.onnx", "rb").read()
    hashlib.sha256(content.replace(checksum, b"0" * 64)).hexdigest() == checksum
"""

import hashlib
from collections.abc import Mapping

import onnx

from lightweight.core.files import FORMAT_KEY

PRODUCER = "lightweight"  # in the field `producer_name`, which precedes the graph and all metadata
CHECKSUM_KEY = "sha256"  # in the metadata
ENTRY = b"\x0a\x06sha256\x12\x40"  # of the metadata, before the value: StringStringEntryProto of onnx.proto
BLANK = b"0" * 64


def serialize(model: onnx.ModelProto) -> bytes:
    """Serialize a model to the bytes of a file with a checksum. Equal models give equal bytes."""
    kept = [item for item in model.metadata_props if item.key != CHECKSUM_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend([*kept, onnx.StringStringEntryProto(key=CHECKSUM_KEY, value=BLANK.decode())])
    content = model.SerializeToString(deterministic=True)
    return content.replace(ENTRY + BLANK, ENTRY + _digest(content))


def check_checksum(content: bytes, producer: str, metadata: Mapping[str, str]) -> bool:
    """Check the bytes of a file; return whether it has a checksum, which files of other producers have not.

    Raises ValueError for content that is not that of the checksum, and for a file of this project without one.
    """
    checksum = metadata.get(CHECKSUM_KEY)
    if checksum is None and (producer == PRODUCER or FORMAT_KEY in metadata):
        raise ValueError("has no checksum: cut off, or made by an older version; `dvc repro` makes it anew")
    if checksum is not None and _digest(content.replace(ENTRY + checksum.encode(), ENTRY + BLANK)) != checksum.encode():
        raise ValueError("its content is not that of its checksum; delete it and run `dvc repro`")
    return checksum is not None


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
