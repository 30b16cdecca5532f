"""Files of tensors: safetensors with one JSON text and a SHA-256 of everything, by which a flipped bit is found.

Equal content gives equal bytes: the text stands under one key, because safetensors writes several metadata keys in
random order. Nothing is pickled.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from lightweight.core.errors import InputError, one_line
from lightweight.core.files import FORMAT_KEY, FORMAT_VERSION, check_format, missing, read_bytes, write_bytes

METADATA_KEY = "lightweight"


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write contiguous tensors on the CPU, none sharing memory with another, and metadata that JSON can hold."""
    metadata = {FORMAT_KEY: FORMAT_VERSION} | metadata
    text = json.dumps({"sha256": _digest(tensors, metadata)} | metadata)
    write_bytes(path, save(tensors, metadata={METADATA_KEY: text}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors of a file by name, and its metadata.

    Raises InputError when the file is missing, damaged, not written by `write_tensors`, or of a newer format.
    """
    return parse_tensors(read_bytes(path), path)


def map_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Map the tensors of a file into memory, which all processes that do so share, as `read_tensors` reads them."""
    try:
        with path.open("rb"), safe_open(path, "pt") as file:  # opened by Python, too, which audits see
            tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except FileNotFoundError:
        raise missing(path) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: damaged or not a safetensors file: {one_line(error)}") from None
    return tensors, _check_metadata(header, tensors, path)


def parse_tensors(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Parse the bytes of a file that `write_tensors` wrote, as `read_tensors` does; `path` stands in its errors."""
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
    except (SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged or not a safetensors file: {one_line(error)}") from None
    return tensors, _check_metadata(header, tensors, path)


def _check_metadata(header: dict[str, str] | None, tensors: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """Parse the metadata of a file, and check version and checksum. Raises InputError."""
    try:
        metadata = json.loads((header or {})[METADATA_KEY])
    except KeyError:
        raise InputError(f"{path}: has no {METADATA_KEY!r} metadata: not written by this project") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged or not a safetensors file: {one_line(error)}") from None
    if not isinstance(metadata, dict) or "sha256" not in metadata:
        raise InputError(f"{path}: has no checksum: not written by this version of the project")
    check_format(path, metadata.get(FORMAT_KEY, 0))
    if metadata.pop("sha256") != _digest(tensors, metadata):
        raise InputError(f"{path}: damaged: its content is not that of its checksum; delete it and run `dvc repro`")
    metadata.pop(FORMAT_KEY, None)
    return metadata


def _digest(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> str:
    """Compute the SHA-256 of metadata and of name, type, shape and bytes of each tensor."""
    digest = hashlib.sha256(json.dumps(metadata).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
