"""Code the integers of small tensors one by one, each predicted from its neighbours, its row, column and place.

A weight is coded as: is it zero, its sign, is it beyond 1, beyond 2, and so on.
"""

import numpy as np

from lightweight.codec.numbers import FieldCoder

LARGEST = 1 << 15
ENOUGH = 4  # weights of a row or column, before its share of zeros says something


def code_weights(fields: FieldCoder, layer: int, given: np.ndarray) -> np.ndarray:
    """Write integers (M, ...), or read as many; return them, int32. Raises ValueError for an integer beyond 16 bits."""
    rows, columns = (*given.shape[:2], 1)[:2]
    height = given.shape[2] if given.ndim > 2 else 1
    width = given.size // max(1, rows * columns * height)
    values = given.reshape(rows, columns, height, width).tolist()
    found = np.zeros((rows, columns, height, width), np.int32)
    by_column, above = [0] * columns, [[[0] * width for _ in range(height)] for _ in range(columns)]
    for row in range(rows):
        nonzero, seen = 0, 0
        current = [[[0] * width for _ in range(height)] for _ in range(columns)]
        for column in range(columns):
            before_column, plane = row * height * width, current[column]
            for y in range(height):
                for x in range(width):
                    left, up = (plane[y][x - 1] if x else 0), (plane[y - 1][x] if y else 0)
                    over = above[column][y][x]
                    value = _code(
                        fields,
                        layer,
                        values[row][column][y][x],
                        near=min(2, abs(left)) + min(2, abs(up)),
                        over=min(2, abs(over)),
                        signs=(_sign(left), _sign(up), _sign(over)),
                        dense=(_share(nonzero, seen), _share(by_column[column], before_column + y * width + x)),
                        place=(y, x),
                        row=row,
                    )
                    plane[y][x] = value
                    nonzero += value != 0
                    by_column[column] += value != 0
                    seen += 1
        above = current
        found[row] = current
    return found.reshape(given.shape)


def _code(
    fields: FieldCoder,
    layer: int,
    value: int,
    *,
    near: int,
    over: int,
    signs: tuple[int, int, int],
    dense: tuple[int, int],
    place: tuple[int, int],
    row: int,
) -> int:
    """Code one weight, from the sizes and signs of its neighbours, the shares of non-zeros, its place and row."""
    contexts = (None, (near, over), dense[0], dense[1], place)
    if not fields.bit(("nonzero", layer), contexts, int(value != 0)):
        return 0
    negative = fields.bit(("negative", layer), (signs[:2], (signs[2], place)), int(value < 0))
    size = 1
    while fields.bit(
        ("more", layer), (min(size, 6), (min(size, 6), near), (min(size, 3), row)), int(abs(value) > size)
    ):
        size += 1
        if size > LARGEST:
            raise ValueError(f"has an integer beyond {LARGEST:,}")
    return -size if negative else size


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _share(nonzero: int, seen: int) -> int:
    """Return the share of weights that are not zero, in eighths; -1 where too few are known."""
    return 8 * nonzero // (seen + 1) if seen > ENOUGH else -1
