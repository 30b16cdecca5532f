"""Mutations of what `torch.save` writes: of the archive, and of the pickle inside it."""

import io
import os
import pickle
import zipfile
from random import Random
from typing import Any


def zip_entry(content: bytes, random: Random) -> bytes:
    """An entry of a .pth archive is damaged, lost, added, or packed; sizes and CRCs are right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {item.filename: archive.read(item) for item in archive.infolist()}
    except Exception:
        return content
    name = random.choice(sorted(entries))
    packing = zipfile.ZIP_STORED
    match random.randrange(5):
        case 0:
            entries[name] = random.choice((b"", entries[name][:-1], entries[name] * 2, bytes(len(entries[name]))))
        case 1:
            del entries[name]
        case 2:
            entries[random.choice(("a", "../a", "/a", "archive/data.pkl", "x" * 1000, f"{name}0"))] = entries[name]
        case 3:
            packing = random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
            if packing == zipfile.ZIP_DEFLATED:
                entries[name] = bytes(20_000_000)
        case 4:
            pickled = next(other for other in entries if other.endswith("data.pkl"))
            entries[pickled] = pickle_code(entries[pickled], random)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", packing, compresslevel=1) as archive:
        for name, body in entries.items():
            archive.writestr(name, body)
    return packed.getvalue()


class Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def pickle_code(content: bytes, random: Random) -> bytes:
    """Opcodes of a pickle are changed, or it is one that would run a command."""
    if random.random() < 0.2:
        return pickle.dumps({"weight": Payload("touch mark")}, protocol=random.choice((0, 2, 4)))
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        changed[random.randrange(len(changed))] = random.choice(
            b".(0123456789abcdeghijloprstuq}])KMJIRQXUtT\x80\x81\x85\x86\x87\x8a"
        )
    return bytes(changed)
