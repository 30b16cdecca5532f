"""Cross-layer equalization: channels get such powers of two that those of one tensor have ranges of similar size.

After Nagel et al. 2019. A tensor of activations has one step for all of its channels, so the widest one decides how
coarsely the others are rounded. A power of two changes no bit of a product but its exponent: the logits of the float32
network stay as they are, bit for bit.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from lightweight.equalization.reach import measure_reach, prove_bounds
from lightweight.equalization.streams import Stream, find_streams
from lightweight.onnx.session import make_inference_session
from lightweight.onnx.weights import layer_name

FUSED = {"Relu", "Clip"}  # with the layer before
LARGEST = 5  # exponent: no channel is scaled by more than 32 against another


@dataclass(frozen=True)
class Equalized:
    """Hold the equalized model, the factors of the inputs (C,) of each layer by its name, and why streams were left."""

    model: onnx.ModelProto
    input_factors: dict[str, np.ndarray] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """Say for the log which layers read scaled channels, and why others could not be scaled."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            reasons.setdefault(reason, []).append(name)
        skipped = "; ".join(f"not those of {', '.join(names)}: {reason}" for reason, names in reasons.items())
        return f"quantize  equalized the inputs of {len(self.input_factors)} layers{f'; {skipped}' if skipped else ''}"


def equalize(model: onnx.ModelProto, batches: Callable[[], Iterable[np.ndarray]], threads: int = 1) -> Equalized:
    """Equalize a copy of a float32 model, whose logits for batches of pixels (N, C, H, W) do not change in any bit.

    A stream of channels that changes them all the same, by an operator that means something else here, is left alone.
    """
    streams = find_streams(model)
    free = [stream for stream in streams if not stream.obstacle]
    reach, bounds = measure_reach(model, free, batches(), threads), prove_bounds(model)
    left = {_name(stream): stream.obstacle for stream in streams if stream.obstacle}
    chosen: list[tuple[Stream, np.ndarray]] = []
    for stream in free:
        factors = choose_factors(model, stream, reach, bounds)
        if (factors != 1).any():
            chosen.append((stream, factors))
        else:
            left[_name(stream)] = (
                "its channels cannot be scaled across Clip" if stream.clips else "its ranges are equal"
            )
    expected = _logits(model, batches, threads)
    if not _same(expected, _logits(_scaled(model, chosen), batches, threads)):
        wrong = [item for item in chosen if not _same(expected, _logits(_scaled(model, [item]), batches, threads))]
        left |= {_name(stream): "the logits would change" for stream, _ in wrong}
        chosen = [item for item in chosen if all(item is not other for other in wrong)]
    inputs = {
        layer_name(reader.input[1]): _spread(own, reader, model) for stream, own in chosen for reader in stream.readers
    }
    return Equalized(_scaled(model, chosen), inputs, left)


def choose_factors(
    model: onnx.ModelProto, stream: Stream, reach: Mapping[str, np.ndarray], bounds: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Choose a power of two for every channel (C,) of a stream.

    With depthwise readers, whose channels have scales of their own, it makes ranges of activations equal. Other readers
    multiply all channels in one sum, and get half of the work: the range of a channel and that of the weights that read
    it become equal. Where a Clip stands between, the largest factor is the one at which nothing can be clipped.
    """
    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    inside = {node.input[0] for node in model.graph.node if node.op_type in FUSED}  # no file rounds them
    names = [name for name in stream.tensors if name in reach and name not in inside]
    known = [reach[name] for name in names if len(reach[name]) == stream.channels]
    if not known:
        return np.ones(stream.channels)
    ranges = np.max([values / max(values.max(), np.finfo(np.float32).tiny) for values in known], axis=0)
    wide = [reader for reader in stream.readers if weights[reader.input[1]].shape[1] > 1 or reader.op_type != "Conv"]
    exponents = -_log2(ranges)
    if wide:
        read = np.max([_range_of_columns(reader, weights[reader.input[1]], stream.channels) for reader in wide], axis=0)
        exponents = (exponents + _log2(read / max(read.max(), np.finfo(np.float32).tiny))) / 2
    exponents = np.floor(np.clip(exponents - exponents.min(), 0, LARGEST) + 0.5)
    for clip in stream.clips:
        limit = float(weights[clip.input[2]]) if len(clip.input) > 2 and clip.input[2] in weights else np.inf
        bound = bounds.get(clip.input[0], np.full(stream.channels, np.inf))
        room = np.where(bound > 0, limit / np.maximum(bound, np.finfo(np.float32).tiny), np.inf)
        exponents = np.where(room >= 1, np.minimum(exponents, np.floor(_log2(room))), 0)
    return np.exp2(np.clip(exponents, 0, LARGEST))


def _log2(values: np.ndarray) -> np.ndarray:
    return np.log2(np.clip(values, 2.0**-32, 2.0**32))


def _range_of_columns(reader: NodeProto, weight: np.ndarray, channels: int) -> np.ndarray:
    """Return the largest absolute weight that reads each channel (C,)."""
    axis = 1 if reader.op_type == "Conv" or _transposed(reader) else 0
    groups = _groups(reader)
    if groups > 1:
        parts = np.abs(weight).reshape(groups, -1, *weight.shape[1:])
        return parts.max(axis=(1, *range(3, parts.ndim))).reshape(-1)
    return np.abs(np.moveaxis(weight, axis, 0)).reshape(channels, -1).max(axis=1)


def _groups(node: NodeProto) -> int:
    return next((item.i for item in node.attribute if item.name == "group"), 1)


def _transposed(node: NodeProto) -> bool:
    return any(item.name == "transB" and item.i for item in node.attribute)


def _spread(factors: np.ndarray, reader: NodeProto, model: onnx.ModelProto) -> np.ndarray:
    """Spread the factors of channels over a weight, in PyTorch's order: what its inputs are multiplied by, (M, ...)."""
    (shape,) = [tuple(item.dims) for item in model.graph.initializer if item.name == reader.input[1]]
    if reader.op_type != "Conv":
        outputs, inputs = shape if _transposed(reader) else shape[::-1]
        return np.tile(np.repeat(factors, inputs // len(factors)), (outputs, 1))
    groups = _groups(reader)
    columns = factors.reshape(groups, 1, -1).repeat(shape[0] // groups, axis=1).reshape(shape[0], -1)
    return np.broadcast_to(columns.reshape(*columns.shape, *[1] * (len(shape) - 2)), shape)


def _scaled(model: onnx.ModelProto, chosen: Iterable[tuple[Stream, np.ndarray]]) -> onnx.ModelProto:
    """Copy a model, and multiply what writes the chosen streams by their factors, and divide what reads them."""
    copy = deepcopy(model)
    tensors = {item.name: item for item in copy.graph.initializer}

    def change(name: str, factors: np.ndarray) -> None:
        values = numpy_helper.to_array(tensors[name]) * factors.astype(np.float32)
        tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))

    for stream, factors in chosen:
        for writer in stream.writers:
            rows = factors.reshape(-1, *[1] * (len(tensors[writer.input[1]].dims) - 1))
            change(writer.input[1], rows if writer.op_type == "Conv" or _transposed(writer) else rows.T)
            for bias in writer.input[2:]:
                change(bias, factors)
        for reader in stream.readers:
            spread = 1 / _spread(factors, reader, copy)
            change(reader.input[1], spread if reader.op_type == "Conv" or _transposed(reader) else spread.T)
    return copy


def _logits(model: onnx.ModelProto, batches: Callable[[], Iterable[np.ndarray]], threads: int) -> list[np.ndarray]:
    """Compute the logits of the first batch."""
    session = make_inference_session(model.SerializeToString(), threads)
    return [session.run(None, {"input": pixels})[0] for pixels, _ in zip(batches(), range(1), strict=False)]


def _same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(one.tobytes() == other.tobytes() for one, other in zip(first, second, strict=True))


def _name(stream: Stream) -> str:
    """Name a stream by the layers that write it."""
    return ", ".join(layer_name(writer.input[1]) for writer in stream.writers)
