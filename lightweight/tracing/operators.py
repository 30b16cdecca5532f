"""Operators: how labels pass each of PyTorch's operators; an unknown operator keeps the channels it reads whole."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightweight.tracing.labels import Planes, compact, varying
from lightweight.tracing.planes import Context, align, distinct, join, meet, reduce, tensors_in

aten = torch.ops.aten


Rule = Callable[[Context, tuple[Any, ...], dict[str, Any], Any], None]


def elementwise(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Unite the labels of elements that are computed with each other."""
    memory, inputs = context.memory, [tensor for tensor in tensors_in([args, kwargs]) if tensor.dim()]
    parameters = [tensor for tensor in inputs if memory.is_parameter(tensor)]
    others = [tensor for tensor in inputs if not memory.is_parameter(tensor)]
    for result in tensors_in(out):
        planes: Planes = []
        for tensor in (*others, *parameters):
            aligned = [align(plane, result.dim()) for plane in memory.read(tensor)]
            planes = meet(context.labels, planes, aligned, bool(others) and memory.is_parameter(tensor))
        if planes or memory.read(result):
            memory.write(result, planes, not others)


def same(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Give the first result the labels of the first argument."""
    (source, *_), (result, *_) = tensors_in(args), tensors_in(out)
    context.memory.write(result, context.memory.read(source), context.memory.is_parameter(source))


def overwrite(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Give a tensor the labels of what is copied into it."""
    target, source = args[:2]
    context.memory.write(target, [align(plane, target.dim()) for plane in context.memory.read(source)])


def reshape(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Tie channels whose dimension is split, such as into heads: the same must go from every part."""
    before, after = context.memory.read(args[0]), list(context.memory.read(out))
    for number, (old, new) in enumerate(zip(before, after, strict=False)):
        if len(varying(new)) > max(1, len(varying(old))):
            after[number] = context.tie_split(new)
            context.memory.remember(out, after)


def split(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Tie the channels of pieces of equal size."""
    first, *rest = out
    for piece in rest:
        if piece.shape == first.shape:
            for some, other in zip(context.memory.read(first), context.memory.read(piece), strict=False):
                context.labels.unite(some, other)


def gate(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Unite the labels of the two halves of which one scales the other."""
    source, dim = args[0], (args[1] if len(args) > 1 else -1) % out.dim()
    halves = [
        [plane.expand(source.shape).narrow(dim, place * out.shape[dim], out.shape[dim])]
        for plane in context.memory.read(source)
        for place in (0, 1)
    ]
    planes: Planes = []
    for half in halves:
        planes = meet(context.labels, planes, [compact(half[0])])
    context.memory.write(out, planes)


def concatenate(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Join the labels of tensors, as the tensors are joined."""
    dim = kwargs.get("dim", args[1] if len(args) > 1 else 0) % out.dim()
    tensors = [tensor for tensor in args[0] if tensor.dim() == out.dim()]
    pieces = [context.memory.read(tensor) for tensor in tensors]
    if any(pieces):
        joined = join(context.labels, pieces, [tensor.shape[dim] for tensor in tensors], dim)
        context.memory.write(out, joined, all(context.memory.is_parameter(tensor) for tensor in tensors))


def stack(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Join the labels of tensors along a new dimension."""
    dim = kwargs.get("dim", args[1] if len(args) > 1 else 0) % out.dim()
    pieces = [[plane.unsqueeze(dim) for plane in context.memory.read(tensor)] for tensor in args[0]]
    if any(pieces):
        context.memory.write(out, join(context.labels, pieces, [1] * len(pieces), dim))


def move(func: Any) -> Rule:
    """Make the rule of an operator that only moves elements: it is run on the labels themselves."""

    def rule(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        memory = context.memory
        sources = [tensor for tensor in tensors_in(args) if tensor.is_floating_point()]
        planes = {id(tensor): memory.read(tensor) for tensor in sources}
        number = max((len(own) for own in planes.values()), default=0)
        results = []
        for place in range(number):

            def labels_of(value: Any, place: int = place) -> Any:
                if isinstance(value, list | tuple):
                    return type(value)(labels_of(part) for part in value)
                if not isinstance(value, Tensor) or not value.is_floating_point():
                    return value
                own = planes[id(value)]
                return (own[place] if place < len(own) else torch.zeros((), dtype=torch.int64)).expand(value.shape)

            plain = labels_of(args)
            if func in (aten.im2col.default,):
                plain = tuple(value.double() if isinstance(value, Tensor) else value for value in plain)
            if func._schema.is_mutable:
                plain = (plain[0].clone(), *plain[1:])
            results.append(func(*plain, **kwargs).to(torch.int64))
        (target, *_) = tensors_in(out)
        if number or memory.read(target):
            parameter = all(memory.is_parameter(tensor) for tensor in sources)
            memory.write(target, distinct(context.labels, results), parameter)

    return rule


def positional(dims: int) -> Rule:
    """Make the rule of an operator that works along the last dimensions, such as pooling and padding."""

    def rule(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        planes, result = context.memory.read(args[0]), tensors_in(out)[0]
        mixed = [plane for plane in planes if any(size > 1 for size in plane.shape[-dims:])]
        context.keep_whole(mixed, "its channels are read in their order")
        context.memory.write(result, [plane for plane in planes if not any(plane is other for other in mixed)])

    return rule


def pad(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Keep whole what is computed with channels that padding adds; padding of positions changes no label."""
    widths, source = list(args[1]), args[0]
    padded = {source.dim() - 1 - place // 2 for place, width in enumerate(widths) if width}
    planes = []
    for plane in context.memory.read(source):
        dims = [dim for dim in varying(plane) if dim in padded]
        if dims:
            added = context.labels.create(1)
            context.labels.keep_whole(added, f"a fixed number of channels is added at {context.site}")
            own = [w if source.dim() - 1 - place // 2 in dims else 0 for place, w in enumerate(widths)]
            plane = torch.constant_pad_nd(plane, own, int(added))
        planes.append(compact(plane))
    context.memory.write(out, planes)


def reduction(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Drop the labels along dimensions that are reduced."""
    source = args[0]
    given = [value for value in (kwargs.get("dim"), *args[1:]) if isinstance(value, list | tuple)]
    given += [[value] for value in (kwargs.get("dim"), *args[1:2]) if type(value) is int]
    dims = sorted(dim % source.dim() for dim in (given[0] if given and given[0] else range(source.dim())))
    for result in tensors_in(out):
        planes = reduce(context.labels, context.memory.read(source), dims)
        if result.dim() < source.dim():
            planes = [plane.squeeze(tuple(dims)) for plane in planes]
        context.memory.write(result, planes, context.memory.is_parameter(source))


def unknown(context: Context, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Keep the channels that an unknown operator reads whole."""
    for tensor in tensors_in([args, kwargs]):
        context.keep_whole(context.memory.read(tensor), "what happens to its channels is not known")
    for result in tensors_in(out):
        if context.memory.read(result):
            context.memory.write(result, [])
