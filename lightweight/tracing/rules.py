"""The rule of every operator through which labels pass."""

from collections.abc import Callable
from typing import Any

import torch

from lightweight.tracing import layers
from lightweight.tracing.operators import (
    Rule,
    concatenate,
    elementwise,
    gate,
    move,
    overwrite,
    pad,
    positional,
    reduction,
    reshape,
    same,
    split,
    stack,
    unknown,
)

NAMES: dict[str, Rule] = {
    **dict.fromkeys(("view", "_unsafe_view", "_reshape_alias", "reshape"), reshape),
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), split),
    **dict.fromkeys(
        ("clone", "_to_copy", "contiguous", "_softmax", "_safe_softmax", "softmax", "lift_fresh_copy"), same
    ),
    **dict.fromkeys(("_log_softmax", "native_dropout", "dropout", "bernoulli"), same),
    "copy_": overwrite,
    "cat": concatenate,
    "glu": gate,
    "stack": stack,
    "constant_pad_nd": pad,
    **dict.fromkeys(("mean", "sum", "amax", "amin", "var", "std", "var_mean", "std_mean", "norm"), reduction),
    **dict.fromkeys(("linalg_vector_norm", "logsumexp", "max", "min", "prod"), reduction),
    **dict.fromkeys(("convolution", "_convolution", "mkldnn_convolution"), layers.convolution),
    **dict.fromkeys(("mm", "bmm"), layers.product),
    **dict.fromkeys(("addmm", "baddbmm"), layers.sum_and_product),
    **dict.fromkeys(("linear", "_linear_pointwise"), layers.linear),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training"), layers.batch_norm),
    **dict.fromkeys(("_native_batch_norm_legit", "_batch_norm_with_update", "cudnn_batch_norm"), layers.batch_norm),
    "_batch_norm_no_update": layers.batch_norm,
    "native_layer_norm": layers.layer_norm,
    "native_group_norm": layers.group_norm,
}
MOVING = {
    *("index", "index_select", "gather", "roll", "flip", "repeat", "pixel_shuffle", "pixel_unshuffle", "im2col"),
    *("native_channel_shuffle", "channel_shuffle", "slice_scatter", "select_scatter", "index_put", "index_put_"),
    *("_unsafe_index", "take_along_dim", "rot90", "repeat_interleave", "masked_select", "slice_copy", "view_copy"),
}
POSITIONAL: tuple[str, ...] = (
    "max_pool",
    "avg_pool",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "upsample",
    "reflection_pad",
)
POSITIONAL += ("replication_pad", "_adaptive_avg_pool", "_upsample", "fractional_max_pool", "mkldnn_max_pool")
aten = torch.ops.aten
EXPENSIVE = {aten.convolution.default, aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default}
VIEWS: dict[Any, Callable[..., Any]] = {  # operators that show elements in another way, and what does so with planes
    **{
        getattr(getattr(aten, name), overload): getattr(getattr(aten, name), overload)
        for name, overload in (
            ("expand", "default"),
            ("permute", "default"),
            ("transpose", "int"),
            ("t", "default"),
            ("unsqueeze", "default"),
            ("squeeze", "default"),
            ("squeeze", "dim"),
            ("squeeze", "dims"),
            ("select", "int"),
            ("slice", "Tensor"),
            ("split", "Tensor"),
            ("split_with_sizes", "default"),
            ("unbind", "int"),
            ("diagonal", "default"),
            ("unfold", "default"),
        )
    },
    **dict.fromkeys((aten.view.default, aten._unsafe_view.default), aten.reshape.default),
}
COPIES = {  # made, or laid out anew, where the layout in memory asks for it
    *(aten.clone.default, aten._to_copy.default, aten.lift_fresh_copy.default, aten.as_strided_.default)
}
IGNORED = {torch.ops.aten.detach.default, torch.ops.aten.detach_.default, torch.ops.aten.alias.default}
POINTWISE = {
    "hardswish",
    "hardswish_",
    "hardsigmoid",
    "hardsigmoid_",
    "hardtanh",
    "hardtanh_",
    "_prelu_kernel",
    "prelu",
}
POINTWISE |= {
    "leaky_relu_",
    "elu_",
    "celu",
    "celu_",
    "softplus",
    "log_sigmoid",
    "log_sigmoid_forward",
    "silu_",
    "mish_",
}
POINTWISE |= {"where", "lerp", "rsub", "relu6", "relu6_", "hardshrink", "softshrink", "floor_divide", "gelu_"}
MAKE_NEW = {"new_zeros", "zeros_like", "ones_like", "new_ones", "empty_like", "new_empty", "full_like", "new_full"}
MAKE_NEW |= {"rand_like", "randn_like", "new_empty_strided", "empty_strided", "as_strided_", "_local_scalar_dense"}


def nothing(context: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Change no labels: views have those of the elements that they show, and new tensors have none."""


def find_rule(func: Any) -> Rule:
    """Find the rule by which labels pass an operator."""
    name = func._schema.name.partition("::")[2]
    if name in NAMES:
        return NAMES[name]
    if name in MOVING:
        return move(func)
    if name.startswith(POSITIONAL):
        return positional(next(int(digit) for digit in "123" if f"{digit}d" in name))
    if torch.Tag.pointwise in func.tags or name in POINTWISE:
        return elementwise
    return nothing if func.is_view or name in MAKE_NEW else unknown


def name_operator(func: Any) -> str:
    """Return the name of an operator, the same for all that reshape, of which one is chosen by the layout in memory."""
    name: str = func._schema.name.partition("::")[2]
    return "view" if NAMES.get(name) is reshape else name
