"""Multiply-accumulate operations of a network, counted by torch.utils.flop_counter: two operations are one MAC."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_macs(model: nn.Module, image: Tensor) -> int:
    """Count the multiply-accumulate operations of convolutions and matrix products for an image (1, C, H, W).

    Leaves the model in evaluation mode.
    """
    return _count(model, image).get_total_flops() // 2


def count_macs_by_module(model: nn.Module, image: Tensor) -> dict[str, int]:
    """Count the same by the name of each module, what is inside it included; leaves the model in evaluation mode."""
    counts = _count(model, image).get_flop_counts()
    totals = {name: sum(operators.values()) // 2 for name, operators in counts.items()}
    return {name.partition(".")[2]: macs for name, macs in totals.items() if "." in name}


def _count(model: nn.Module, image: Tensor) -> FlopCounterMode:
    """Run the model on an image under the counter, which is returned."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused attention is not counted
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:  # the counter asks parts of them, such as `queries.expand`, for gradients
            parameter.requires_grad_(False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _make_counter() as counter:
            model.eval()(image)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter


def _make_counter() -> FlopCounterMode:
    """Make a counter that knows oneDNN's linear layers (core/linear.py), too."""

    def count(inputs: torch.Size, weight: torch.Size, *others: Any, **more: Any) -> int:
        return 2 * inputs.numel() * weight[0]

    return FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: count})
