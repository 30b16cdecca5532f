"""Mutations of PNG files, behind the checksums and the sizes that they state."""

import struct
import zlib
from random import Random

BOMBS = [zlib.compress(bytes(size), level=1) for size in (1_000, 2_000_000, 40_000_000)]
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_field(content: bytes, random: Random) -> bytes:
    """A field of IHDR becomes extreme; the CRC is right."""
    chunks = _chunks(content)
    header = bytearray(chunks[0][1]) if chunks else bytearray()
    if len(header) != 13:
        return content
    if random.random() < 0.6:
        sides = (0, 1, 2, 1024, 9459, 9460, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
        struct.pack_into(">I", header, random.choice((0, 4)), random.choice(sides))
    else:
        header[random.randrange(8, 13)] = random.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    return _png([(b"IHDR", bytes(header)), *chunks[1:]])


def png_chunk(content: bytes, random: Random) -> bytes:
    """A chunk is lost, doubled, moved, damaged or added; the CRCs are right."""
    chunks = _chunks(content)
    if not chunks:
        return content
    place = random.randrange(len(chunks))
    name, body = chunks[place]
    bomb = random.choice(BOMBS)
    match random.randrange(5):
        case 0:
            del chunks[place]
        case 1:
            chunks.insert(random.randrange(len(chunks)), (name, body))
        case 2:
            chunks[place] = (name, random.choice((b"", body[:-1], random.randbytes(len(body)), body * 2)))
        case 3:
            added = (b"zTXt", b"Comment\0\0" + bomb), (b"iTXt", b"Comment\0\1\0\0\0" + bomb), (b"iCCP", b"a\0\0" + bomb)
            chunks[1:1] = [random.choice(added)] * random.choice((1, 2, 100))
        case 4:
            names = (
                b"PLTE",
                b"tRNS",
                b"gAMA",
                b"pHYs",
                b"eXIf",
                b"acTL",
                b"fcTL",
                b"fdAT",
                b"sRGB",
                b"zzzz",
                b"\0\0\0\0",
            )
            chunks.insert(
                random.choice((0, 1, len(chunks))), (random.choice(names), random.randbytes(random.choice((0, 8, 26))))
            )
    return _png(chunks)


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], len(SIGNATURE)
    while place + 8 <= len(content):
        length = struct.unpack_from(">I", content, place)[0]
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return SIGNATURE + b"".join(packed)
