"""Linear layers of float32 on the CPU by oneDNN in place of MKL, so that all CPUs give the same bits.

MKL takes other kernels on the CPUs of another vendor. oneDNN chooses its kernels by the instruction set alone, and is
as fast. Every `aten::linear` of float32 on the CPU is computed so, and with it its gradients; matrix products that are
no linear layer, such as those of attention, remain MKL's.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


class OneDnnLinear(torch.autograd.Function):
    """Compute `x W^T + b` and its gradients by oneDNN's inner product, for float32 on the CPU."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute outputs (..., out) from inputs (..., in), weight (out, in) and bias (out,)."""
        context.save_for_backward(inputs, weight)
        return _inner_product(inputs, weight, bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Compute the gradients of inputs, weight and bias from that of the outputs."""
        inputs, weight = context.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        wanted = context.needs_input_grad
        of_inputs = _inner_product(gradient.contiguous(), weight.t().contiguous()) if wanted[0] else None
        columns = inputs.reshape(-1, inputs.shape[-1]).t().contiguous()
        of_weight = _inner_product(rows.t().contiguous(), columns) if wanted[1] else None
        return of_inputs, of_weight, rows.sum(0) if wanted[2] else None


def _inner_product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute a linear layer by oneDNN where it can, else as PyTorch does."""
    plain = all(type(tensor) in (Tensor, nn.Parameter) for tensor in (inputs, weight))  # no tracing
    if plain and inputs.dtype == weight.dtype == torch.float32 and weight.ndim == 2 and inputs.numel():
        return OneDnnLinear.apply(inputs, weight, bias)
    return torch.ops.aten.linear.default.decompose(inputs, weight, bias)


@cache
def use_portable_linear() -> torch.library.Library | None:
    """Register oneDNN for `aten::linear` on the CPU, where PyTorch has it, and return the registration.

    What is registered stays for the life of the process.
    """
    if not torch.backends.mkldnn.is_available():
        return None
    library = torch.library.Library("aten", "IMPL")
    for key in ("CPU", "AutogradCPU"):
        library.impl("linear", _linear, key)
    return library
