"""Multiply-accumulate operations of a network, counted by torch.utils.flop_counter: two operations are one MAC."""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_macs(model: nn.Module, image: Tensor) -> int:
    """Count the multiply-accumulate operations of convolutions and matrix products for an image (1, C, H, W).

    Leaves the model in evaluation mode.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused attention is not counted
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval()(image)
    torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2
