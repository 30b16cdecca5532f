"""The reference of a removal: the whole network, executed as if removed channels were not there.

Sums leave removed channels out, and what is normalised together is normalised over the channels that stay.
"""

from collections.abc import Callable, Set
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightweight.tracing.labels import NONE
from lightweight.tracing.planes import tensors_in
from lightweight.tracing.rules import COPIES, IGNORED, name_operator
from lightweight.tracing.trace import Place, Trace, Tracer

Print = tuple[str, int, float, float]  # an operator, and the number, sum and sum of squares of what it gives
SUMMING = {"mm", "bmm", "addmm", "baddbmm", "linear", "convolution", "sum", "linalg_vector_norm", "norm"}


class Reference(Tracer):
    """Execute a network without the channels of removed classes, and take a fingerprint of every operator's result."""

    def __init__(self, model: nn.Module, trace: Trace, removed: Tensor, rows: Set[Place]) -> None:
        super().__init__(model, trace.labels, trace.axes, rows)
        self.gone = torch.zeros(len(trace.labels.roots) + 10_000, dtype=torch.bool)  # labels may be added
        self.gone[removed] = True
        self.prints: list[Print] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if func not in IGNORED | COPIES:
            self.prints.append(_print(func, out, self.kept))
        return out

    def kept(self, tensor: Tensor) -> Tensor | None:
        """Return which elements of a tensor stay, in its shape; None for all of them."""
        removed = [self.gone[self.context.labels.find(plane)] & (plane != NONE) for plane in self.memory.read(tensor)]
        removed = [mask for mask in removed if mask.any()]
        if not removed:
            return None
        kept = torch.ones(tensor.shape, dtype=torch.bool)
        for mask in removed:
            kept &= ~mask.expand(tensor.shape)
        return kept

    def execute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Execute an operator on what stays of its inputs."""
        name = func._schema.name.partition("::")[2]
        if name in SUMMING:
            args = [self._fill(value, 0.0) if isinstance(value, Tensor) else value for value in args]
        elif args and isinstance(args[0], Tensor) and (kept := self.kept(args[0])) is not None:
            if name in ("amax", "_softmax", "_safe_softmax", "max", "logsumexp"):
                out = func(self._fill(args[0], -torch.inf), *args[1:], **kwargs)
                return out.nan_to_num(0.0) if name.endswith("softmax") else out
            if name == "amin":
                return func(self._fill(args[0], torch.inf), *args[1:], **kwargs)
            if name in STATISTICS:
                return STATISTICS[name](func, kept, *args, **kwargs)
        return func(*args, **kwargs)

    def _fill(self, tensor: Tensor, value: float) -> Tensor:
        kept = self.kept(tensor) if tensor.is_floating_point() else None
        return tensor if kept is None else tensor.masked_fill(~kept, value)


class Recorder(TorchDispatchMode):
    """Take a fingerprint of every operator's result."""

    def __init__(self) -> None:
        super().__init__()
        self.prints: list[Print] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func not in IGNORED | COPIES:
            self.prints.append(_print(func, out, lambda tensor: None))
        return out


def _print(func: Any, out: Any, kept: Callable[[Tensor], Tensor | None]) -> Print:
    for tensor in tensors_in(out)[:1]:
        if tensor.is_floating_point():
            mask = kept(tensor)
            values = tensor if mask is None else tensor.masked_fill(~mask, 0.0)
            number = tensor.numel() if mask is None else int(mask.sum())
            return name_operator(func), number, float(values.sum()), float(values.square().sum())
    return name_operator(func), 0, 0.0, 0.0


def _moments(kept: Tensor, values: Tensor, dims: list[int], correction: float = 0.0) -> tuple[Tensor, Tensor]:
    """Compute mean and variance along `dims` of what is kept, with these dimensions of size 1."""
    number = kept.sum(dims, keepdim=True).clamp(min=1)
    mean = values.masked_fill(~kept, 0.0).sum(dims, keepdim=True) / number
    square = (values - mean).masked_fill(~kept, 0.0).square().sum(dims, keepdim=True)
    return mean, square / (number - correction).clamp(min=1)


def _mean(func: Any, kept: Tensor, values: Tensor, dims: Any = None, keepdim: bool = False, **others: Any) -> Tensor:
    dims = [dim % values.dim() for dim in dims] if dims else list(range(values.dim()))
    mean, _ = _moments(kept, values, dims)
    return mean if keepdim else mean.squeeze(tuple(dims))


def _variance(func: Any, kept: Tensor, values: Tensor, dims: Any = None, *others: Any, **options: Any) -> Any:
    keepdim, correction = options.get("keepdim", False), options.get("correction", 1)
    dims = [dim % values.dim() for dim in dims] if dims else list(range(values.dim()))
    mean, variance = _moments(kept, values, dims, correction)
    mean, variance = (part if keepdim else part.squeeze(tuple(dims)) for part in (mean, variance))
    name = func._schema.name.partition("::")[2]
    first = variance.sqrt() if name.startswith("std") else variance
    return (first, mean) if name.endswith("_mean") else first


def _layer_norm(func: Any, kept: Tensor, values: Tensor, shape: Any, weight: Any, bias: Any, epsilon: float) -> Any:
    mean, variance = _moments(kept, values, list(range(values.dim() - len(shape), values.dim())))
    scale = (variance + epsilon).rsqrt()
    result = (values - mean) * scale
    result = result if weight is None else result * weight
    return (result if bias is None else result + bias), mean, scale


def _group_norm(
    func: Any, kept: Tensor, values: Tensor, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int, eps: float
) -> Any:
    parts = values.reshape(n, groups, -1)
    mean, variance = _moments(kept.reshape(n, groups, -1), parts, [2])
    scale = (variance + eps).rsqrt()
    result = ((parts - mean) * scale).reshape(values.shape)
    shape = (1, -1) + (1,) * (values.dim() - 2)
    result = result if weight is None else result * weight.reshape(shape)
    return (result if bias is None else result + bias.reshape(shape)), mean.squeeze(2), scale.squeeze(2)


def _batch_norm(func: Any, kept: Tensor, values: Tensor, weight: Any, bias: Any, *rest: Any) -> Any:
    training, epsilon = (rest[-3], rest[-1])
    if not training:
        return func(values, weight, bias, *rest)
    mean, variance = _moments(kept, values, [dim for dim in range(values.dim()) if dim != 1])
    scale = (variance + epsilon).rsqrt()
    shape = (1, -1) + (1,) * (values.dim() - 2)
    result = (values - mean) * scale
    result = result if weight is None else result * weight.reshape(shape)
    result = result if bias is None else result + bias.reshape(shape)
    return result, mean.flatten(), scale.flatten()


STATISTICS: dict[str, Callable[..., Any]] = {
    "mean": _mean,
    "var": _variance,
    "std": _variance,
    "var_mean": _variance,
    "std_mean": _variance,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
}
