"""A mutant is named by its kind and number alone: the same two give the same bytes, on any machine."""

import struct
from collections.abc import Callable
from random import Random

from tests.faults import mutate_images, mutate_onnx, mutate_params, mutate_pickle, mutate_tensors

Mutation = Callable[..., bytes]

HEAD = 256  # bytes at both ends, where formats keep their headers and directories
WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}  # of struct, by bytes


def mutant(kind: str, number: int, corpus: dict[str, list[bytes]]) -> tuple[str, bytes]:
    """The names of the mutations, and what they made of one of the valid files of this kind: never that file."""
    random = Random(f"{kind} {number}")
    content = whole = random.choice(corpus[kind])
    aware = AWARE.get(kind, [])
    if aware and random.random() < 0.6:
        chosen = [random.choice(aware)]
        if random.random() < 0.1:
            chosen.append(random.choice(GENERIC))
    else:
        chosen = random.choices(GENERIC, k=random.choice((1, 1, 1, 2, 4)))
    for mutation in chosen:
        if mutation is splice:
            other = random.choice(corpus[random.choice(sorted(corpus))])
            content = splice(content, random, other)
        else:
            content = mutation(content, random)
    while content == whole:
        chosen.append(flip_bits)
        content = flip_bits(content, random)
    return "+".join(mutation.__name__ for mutation in chosen), content


def flip_bits(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8))):
        if changed:
            changed[_place(changed, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def overwrite(content: bytes, random: Random) -> bytes:
    start = _place(content, random)
    new = random.randbytes(random.randint(1, 16))
    return content[:start] + new + content[start + len(new) :]


def integer(content: bytes, random: Random) -> bytes:
    """An integer of any width and byte order becomes an extreme one, which lengths and offsets may be."""
    width = random.choice(tuple(WIDTHS))
    start, top = _place(content, random), 2 ** (8 * width)
    extremes = (0, 1, 2, top - 1, top - 2, top // 2, top // 2 - 1, top // 4, len(content), len(content) + 1)
    value = random.choice(extremes) % top
    return content[:start] + struct.pack(random.choice("<>") + WIDTHS[width], value) + content[start + width :]


def truncate(content: bytes, random: Random) -> bytes:
    return content[: random.choice((0, 1, _place(content, random), max(0, len(content) - random.randint(1, 64))))]


def extend(content: bytes, random: Random) -> bytes:
    length = random.choice((1, 8, 1000, 100_000))
    return content + random.choice((bytes(length), random.randbytes(length), content[:length]))


def duplicate(content: bytes, random: Random) -> bytes:
    start, end = _block(content, random)
    return content[:end] + content[start:end] * random.choice((1, 1, 10)) + content[end:]


def delete(content: bytes, random: Random) -> bytes:
    start, end = _block(content, random)
    return content[:start] + content[end:]


def zero(content: bytes, random: Random) -> bytes:
    start, end = _block(content, random)
    return content[:start] + random.choice((b"\0", b"\xff")) * (end - start) + content[end:]


def splice(content: bytes, random: Random, other: bytes) -> bytes:
    """The beginning of one file, the end of another."""
    return content[: _place(content, random)] + other[_place(other, random) :]


GENERIC: list[Mutation] = [flip_bits, overwrite, integer, truncate, extend, duplicate, delete, zero, splice]

HEADER = [mutate_tensors.header_field, mutate_tensors.header_entry, mutate_tensors.header_text]
SIGNED = [mutate_tensors.signed_about, mutate_tensors.signed_tensors]
AWARE: dict[str, list[Mutation]] = {
    "checkpoint": [*HEADER, *SIGNED, *SIGNED],
    "dataset": [*HEADER, *SIGNED, *SIGNED],
    "weights": HEADER,
    "pth": [mutate_pickle.zip_entry],
    "pickle": [mutate_pickle.pickle_code],
    "onnx": mutate_onnx.MUTATIONS,
    "png": [mutate_images.png_field, mutate_images.png_chunk],
    "params": [mutate_params.lines, mutate_params.values],
}


def _place(content: bytes, random: Random) -> int:
    """Anywhere, or near one end."""
    anywhere = random.randrange(max(1, len(content)))
    near = min(HEAD, max(1, len(content)))
    return random.choice((anywhere, random.randrange(near), max(0, len(content) - 1 - random.randrange(near))))


def _block(content: bytes, random: Random) -> tuple[int, int]:
    start = _place(content, random)
    return start, min(len(content), start + random.choice((1, 4, 16, 64, 1024, 65_536)))
