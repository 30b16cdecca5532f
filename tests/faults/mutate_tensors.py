"""Mutations of safetensors: of its header, and of what a file of this project says, under a checksum that is right."""

import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load

from lightweight.core.tensor_file import METADATA_KEY, write_tensors

INTEGERS = (
    0,
    1,
    2,
    3,
    7,
    127,
    65_535,
    100_000,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64,
    -1,
    -(2**63),
)
TEXTS = ("", " ", "\n", "a\nb", "x" * 5000, "\0", "größer", "\ud800", "os:system", "subprocess:Popen", "cnn", "../..")
DEEP = "[" * 2000 + "]" * 2000


def odd(random: Random) -> Any:
    """A value of JSON that is not the expected one."""
    number = random.choice(INTEGERS)
    text = random.choice(TEXTS)
    return random.choice((number, text, None, True, 0.5, 1e308, [], {}, [number], [text], {text: number}, [[]] * 1000))


def header_field(content: bytes, random: Random) -> bytes:
    """A dtype, shape or offset of safetensors becomes anything."""

    def change(header: dict[str, Any]) -> None:
        entry = header[random.choice(sorted(header))]
        key = random.choice(("dtype", "shape", "data_offsets", "new"))
        dtypes = ("F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "U64", "C64", "F4", "X")
        numbers = [random.choice(INTEGERS) for _ in range(random.randint(0, 5))]
        entry[key] = random.choice((odd(random), random.choice(dtypes), numbers, numbers))

    return _edit_header(content, change)


def header_entry(content: bytes, random: Random) -> bytes:
    """A tensor or the metadata of safetensors is renamed, added, replaced or lost."""

    def change(header: dict[str, Any]) -> None:
        name, other = random.choice(sorted(header)), random.choice((*TEXTS, *sorted(header)))
        moved = header.pop(name)
        match random.randrange(4):
            case 0:
                header[other] = moved
            case 1:
                header |= {name: moved, other: moved}
            case 2:
                header[name] = odd(random)

    return _edit_header(content, change)


def header_text(content: bytes, random: Random) -> bytes:
    """The header of safetensors is other JSON, or claims another length."""
    texts = (
        DEEP,
        "{}",
        "[]",
        "null",
        '{"a":' * 500 + "1" + "}" * 500,
        '{"__metadata__":{"lightweight":"' + DEEP + '"}}',
    )
    text = random.choice(texts).encode()
    length = random.choice((len(text), len(text), len(text), *INTEGERS)) % 2**64
    return struct.pack("<Q", length) + text + random.choice((b"", content))


def signed_about(content: bytes, random: Random) -> bytes:
    """What a file of this project says about its tensors becomes anything, under a checksum that is right."""

    def change(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> dict[str, torch.Tensor]:
        inner: Any = about
        while isinstance(inner, dict) and inner:
            key = random.choice(sorted(inner))
            if not isinstance(inner[key], dict) or random.random() < 0.2:
                if random.random() < 0.1:
                    del inner[key]
                else:
                    inner[key] = odd(random)
                break
            inner = inner[key]
        return tensors

    return _edit_signed(content, change)


def signed_tensors(content: bytes, random: Random) -> bytes:
    """A tensor of a file of this project gets another type, shape, name or values, under a checksum that is right."""

    def change(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> dict[str, torch.Tensor]:
        name = random.choice(sorted(tensors))
        tensor = tensors.pop(name)
        types = (torch.float64, torch.float16, torch.uint8, torch.int8, torch.int64, torch.bool, torch.complex64)
        match random.randrange(7):
            case 0:
                tensors[name] = tensor.to(random.choice(types))
            case 1:
                tensors[name] = tensor.flatten()
            case 2:
                tensors[name] = tensor[None]
            case 3:
                tensors[name] = tensor[: random.choice((0, 1, 2))] if tensor.ndim else tensor
            case 4:
                tensors[random.choice(TEXTS[:-1])] = tensor
            case 5:
                tensors[name] = torch.full_like(tensor, random.choice((-1, 10, 127)))
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    return _edit_signed(content, change)


def _edit_header(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    try:
        length = struct.unpack_from("<Q", content)[0]
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
    except Exception:  # not valid any more
        return content
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _edit_signed(content: bytes, change: Callable[..., dict[str, torch.Tensor]]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        try:
            tensors = load(content)
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()[METADATA_KEY])
            about.pop("sha256", None)
            write_tensors(path, change(tensors, about), about)
        except Exception:  # not valid any more, or nothing that safetensors can write
            return content
        return path.read_bytes()
