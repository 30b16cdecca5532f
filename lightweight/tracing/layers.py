"""Layers: how labels pass convolutions, matrix products and normalisations."""

from typing import Any

from torch import Tensor

from lightweight.tracing.labels import Labels, Planes, varying
from lightweight.tracing.planes import Context, meet


def convolution(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Unite channels with the weights that read them, and give the results the labels of the weights' outputs."""
    images, weight, bias, *_, transposed, _, groups = args[:9]
    labels, memory = context.labels, context.memory
    inner, outer = (0, 1) if transposed else (1, 0)
    weights = memory.read(weight)
    read = [plane for plane in weights if varying(plane) == [inner]]
    made = [plane.reshape(1, -1, *[1] * (out.dim() - 2)) for plane in weights if varying(plane) == [outer]]
    if len(read) + len(made) < len(weights):
        context.keep_whole(weights, "its weights are computed from channels")
    passed: Planes = []
    for plane in memory.read(images):
        spatial = [dim for dim in varying(plane) if dim > 1]
        if plane.shape[1] == 1 and spatial:
            context.keep_whole([plane], "its channels are read in their order")
        elif plane.shape[1] == 1:
            passed.append(plane)
        else:
            line = labels.tie(plane, [dim for dim in varying(plane) if dim != 1]).reshape(-1)
            _read_channels(context, line, [item.reshape(-1) for item in read], made, groups)
    if groups > 1 and out.shape[1] > groups and weight.shape[inner] != 1:
        for plane in made:
            labels.tie(plane.reshape(groups, -1), [0])
    made = meet(labels, passed, made) if passed else made
    if bias is not None:
        meet(labels, made, [plane.reshape(1, -1, *[1] * (out.dim() - 2)) for plane in memory.read(bias)])
    memory.write(out, made)


def _read_channels(context: Context, line: Tensor, read: Planes, made: Planes, groups: int) -> None:
    """Unite the labels of channels (channels,) with those of the weights that read them in so many groups."""
    labels = context.labels
    width = len(line) // groups
    if groups == 1:
        for plane in read:
            labels.unite(line, plane)
    elif width == 1:  # depthwise: a channel goes with what is computed from it alone
        for plane in made:
            labels.unite(line.unsqueeze(1), plane.reshape(groups, -1))
    else:
        (tied,) = labels.tie(line.reshape(groups, width), [0])
        for plane in read:
            labels.unite(tied, plane)


def matrix_product(context: Context, left: Tensor, right: Tensor, result: Tensor) -> None:
    """Unite the labels along the dimension over which two batches of matrices are multiplied; pass on the others."""
    labels, memory = context.labels, context.memory
    some = [plane.unsqueeze(0) if left.dim() == 2 else plane for plane in memory.read(left)]
    others = [plane.unsqueeze(0) if right.dim() == 2 else plane for plane in memory.read(right)]
    rows = [_of_one_part(labels, plane) for plane in some if plane.shape[2] == 1]
    columns = [_of_one_part(labels, plane) for plane in others if plane.shape[1] == 1]
    among_channels = any(plane.shape[1] > 1 for plane in rows)  # attention of channels to channels, not of positions
    if not memory.is_parameter(left) and not memory.is_parameter(right):
        pairs = [(plane, other) for plane in some for other in others if plane.shape[2] == other.shape[1] > 1]
        context.multiplied += [(plane[0, 0], other[0, :, 0], among_channels) for plane, other in pairs]
    summed = [labels.tie(plane, [1]) for plane in some if plane.shape[2] > 1]
    read = [labels.tie(plane, [2]) for plane in others if plane.shape[1] > 1]
    for plane in summed:
        if not read:
            context.keep_whole([plane], "its channels are multiplied by constants")
        for other in read:
            labels.unite(plane.transpose(1, 2), other)
    planes = meet(labels, rows, columns)
    parameter = memory.is_parameter(left) and memory.is_parameter(right)
    memory.write(result, [plane.squeeze(0) for plane in planes] if result.dim() == 2 else planes, parameter)


def _of_one_part(labels: Labels, plane: Tensor) -> Tensor:
    """Return the labels of one matrix of a batch where all have the same, as in attention whose heads stay.

    Rows and columns, which differ, do not meet then in the dimension of the batch.
    """
    first = plane.narrow(0, 0, 1)
    alike = len(varying(first)) > 0 and bool((labels.find(plane) == labels.find(first)).all())
    return first if alike else plane


def product(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Unite labels in a product of two matrices, or of batches of them."""
    matrix_product(context, args[0], args[1], out)


def sum_and_product(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Unite labels in a product of two matrices to which a third tensor is added."""
    matrix_product(context, args[1], args[2], out)
    added, memory = args[0], context.memory
    planes = [plane.reshape((1,) * (out.dim() - plane.dim()) + tuple(plane.shape)) for plane in memory.read(added)]
    memory.write(out, meet(context.labels, memory.read(out), planes, memory.is_parameter(added)))


def linear(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Unite channels with the weights of a linear layer that read them."""
    inputs, weight, *rest = args
    matrix_product(context, inputs.reshape(-1, inputs.shape[-1]), weight.t(), out.reshape(-1, out.shape[-1]))
    if rest and rest[0] is not None:
        planes = context.memory.read(rest[0])
        meet(context.labels, context.memory.read(out.reshape(-1, out.shape[-1])), [p.unsqueeze(0) for p in planes])


def batch_norm(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Unite channels with their scales, shifts and statistics."""
    _scale(context, args[0], args[1:5], out[0], 1)


def layer_norm(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Unite channels with their scales and shifts; they may be normalised together."""
    images, _, *scales = args
    _scale(context, images, scales[:2], out[0], None)


def group_norm(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Tie the channels at the same place in every group, and unite them with their scales and shifts."""
    images, weight, bias, *_, groups, _ = args
    if groups > 1:
        for plane in context.memory.read(images):
            if plane.shape[1] > 1:
                lines = context.labels.tie(plane, [dim for dim in varying(plane) if dim != 1])
                context.labels.tie(lines.reshape(groups, -1), [0])
    _scale(context, images, (weight, bias), out[0], 1)


def _scale(context: Context, images: Tensor, scales: Any, result: Tensor, dim: int | None) -> None:
    """Unite labels with those of vectors along dimension `dim`, or of tensors along the last dimensions."""
    memory = context.memory
    planes = memory.read(images)
    for scale in scales:
        if isinstance(scale, Tensor):
            shape = [1] * images.dim()
            for plane in memory.read(scale):
                shape[dim if dim is not None else 0] = plane.numel() if dim is not None else 1
                aligned = (
                    plane.reshape(shape)
                    if dim is not None
                    else plane.reshape((1,) * (images.dim() - plane.dim()) + tuple(plane.shape))
                )
                planes = meet(context.labels, planes, [aligned], True) if planes else planes
    memory.write(result, planes, memory.is_parameter(images))
