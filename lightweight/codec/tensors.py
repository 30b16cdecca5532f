"""The tensors of a file: integers with scales by channel, or exact values."""

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from lightweight.codec.numbers import FieldCoder
from lightweight.codec.planes import code_weights
from lightweight.codec.scales import LARGEST, scales_of

MOST_VALUES = 1 << 27  # of a file
MOST_DIMENSIONS = 8
# Part of the format: kinds may be added at the end.
KINDS = ("float32", "int64", "int32", "bool", "float16", "uint8", "int8", "float64")


@dataclass(frozen=True)
class CodedTensor:
    """Hold integers whose scale differs along one axis: the value is integer times scale of its code.

    `codes` has one code for each channel, those of the axis, or one for all.
    """

    integers: np.ndarray
    codes: np.ndarray
    axis: int = 0

    def values(self) -> np.ndarray:
        """Return the values, float32."""
        scales = scales_of(self.codes)
        shape = [1] * self.integers.ndim
        if self.integers.ndim:
            shape[self.axis] = len(scales)
        return self.integers.astype(np.float32) * scales.reshape(shape)


Tensor = CodedTensor | np.ndarray


class TensorCoder:
    """Code the tensors of one file in turn."""

    def __init__(self, fields: FieldCoder) -> None:
        self.fields, self.left = fields, MOST_VALUES

    def code(self, given: Tensor | None = None) -> Tensor:
        """Write a tensor, or read one. Raises ValueError for one that no encoder wrote."""
        exact = isinstance(given, np.ndarray)
        array = given if isinstance(given, np.ndarray) else given.integers if given else np.zeros(())
        shape = self._shape(array.shape)
        kind = self.fields.natural("tensor", 1 + KINDS.index(array.dtype.name) if exact else 0, len(shape))
        if kind:
            return self._exact(kind - 1, shape, array)
        return self._coded(shape, given if isinstance(given, CodedTensor) else None)

    def _shape(self, given: tuple[int, ...]) -> tuple[int, ...]:
        dimensions = self.fields.natural("dimensions", len(given))
        if dimensions > MOST_DIMENSIONS:
            raise ValueError(f"has a tensor of {dimensions} dimensions")
        sizes = given if not self.fields.reads else (0,) * dimensions
        shape = tuple(self.fields.natural(("size", place), size, dimensions) for place, size in enumerate(sizes))
        self.left -= int(np.prod([float(size) for size in shape]))
        if self.left < 0:
            raise ValueError(f"has more than {MOST_VALUES:,} weights")
        return shape

    def _exact(self, kind: int, shape: tuple[int, ...], given: np.ndarray) -> np.ndarray:
        if kind >= len(KINDS):
            raise ValueError("has a tensor of a kind that a newer version knows")
        dtype = np.dtype(KINDS[kind]).newbyteorder("<")
        if dtype.kind == "i":
            flat = given.ravel().tolist() if not self.fields.reads else repeat(0, int(np.prod(shape)))
            found = np.array([self.fields.whole("integer", int(value), dtype.name) for value in flat])
            return found.astype(dtype).reshape(shape)
        content = self.fields.text(("exact", dtype.name), given.astype(dtype).tobytes(), 8 * MOST_VALUES)
        if len(content) != int(np.prod(shape)) * dtype.itemsize:
            raise ValueError("has a tensor of another size than its shape")
        return np.frombuffer(content, dtype).reshape(shape).astype(KINDS[kind])

    def _coded(self, shape: tuple[int, ...], given: CodedTensor | None) -> CodedTensor:
        rank = min(len(shape), 2)
        axis = self.fields.natural("axis", given.axis if given else 0, rank)
        if axis >= max(1, len(shape)):
            raise ValueError("has scales along an axis that a tensor has not")
        by_channel = self.fields.natural("scales", int(len(given.codes) > 1) if given else 0, rank)
        number = shape[axis] if by_channel and shape else 1
        codes = self._codes(given.codes if given else np.zeros(number, np.int64), rank)
        integers = given.integers if given else np.broadcast_to(np.int32(0), shape)
        if len(shape) < 2:
            flat = [self.fields.whole("vector", int(value)) for value in integers.ravel()]
            return CodedTensor(np.array(flat, np.int32).reshape(shape), codes, axis)
        moved = np.moveaxis(integers, axis, 0)
        found = code_weights(self.fields, moved)
        return CodedTensor(np.ascontiguousarray(np.moveaxis(found, 0, axis)), codes, axis)

    def _codes(self, given: np.ndarray, rank: int) -> np.ndarray:
        """Code scales by the difference of each to the one before."""
        kind: Hashable = ("scale", rank)
        stride = self.fields.natural((kind, "stride"), int(np.gcd.reduce(given - given[:1])) if given.size else 0)
        first = self.fields.whole((kind, "first"), int(given[0]) if given.size else 0)
        found = [first]
        for value in given[1:].tolist():
            step = self.fields.whole(kind, (value - first) // stride if stride else 0)
            found.append(first + step * stride)
        codes = np.array(found[: len(given)], np.int64)
        if codes.size and np.abs(codes).max() > LARGEST:
            raise ValueError("has a scale beyond all float32 numbers")
        return codes
