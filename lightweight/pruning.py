"""The smallest weights become exactly zero, and stay zero while the others recover.

Magnitude pruning (Han et al. 2015) with the masks of torch.nn.utils.prune.L1Unstructured, but not its hooks: they
only work on modules that are called, which the layers inside an attention block are not.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.utils.prune import L1Unstructured
from torch.utils.hooks import RemovableHandle

from lightweight.errors import bad_param
from lightweight.params import Params

KINDS = {"conv": (nn.Conv2d,), "linear": (nn.Linear,), "both": (nn.Conv2d, nn.Linear)}


class PruneParams(Params):
    amount: float = Field(ge=0, lt=1)
    layers: Literal["conv", "linear", "both"]
    scope: Literal["layer", "global"]
    epochs: int = Field(ge=0, le=10_000)
    lr: float = Field(gt=0, le=10)


def prune(model: nn.Module, params: PruneParams, recover: Callable[[nn.Module], None]) -> None:
    """Zero the share `amount` of the chosen weights in place, smallest magnitude first; biases stay.

    The share holds in each layer or over all of them together. `recover` fine-tunes the pruned model with a new
    optimizer: a pruned weight gets no gradient, so it stays zero. An amount of 0 changes nothing and recovers
    nothing. Raises InputError when no layer is of the kind.
    """
    if params.amount == 0:
        return
    weights = [module.weight for _, module in layers(model, params.layers)]
    if not weights:
        raise bad_param("prune.layers", params.layers, "the network has no such layer")
    groups = [weights] if params.scope == "global" else [[weight] for weight in weights]
    handles = [handle for group in groups for handle in _zero_smallest(group, params.amount)]
    recover(model)
    for handle in handles:
        handle.remove()


def _zero_smallest(weights: list[nn.Parameter], amount: float) -> list[RemovableHandle]:
    """Zero the share of all `weights` together, and hold them there until the returned hooks are removed."""
    flat = torch.cat([weight.detach().flatten() for weight in weights])
    kept = L1Unstructured(amount).compute_mask(flat, torch.ones_like(flat)).bool()
    handles = []
    for weight, part in zip(weights, kept.split([weight.numel() for weight in weights]), strict=True):
        pruned = ~part.view(weight.shape)
        weight.data.masked_fill_(pruned, 0)
        handles.append(weight.register_hook(lambda gradient, pruned=pruned: gradient.masked_fill(pruned, 0)))
    return handles


def layers(model: nn.Module, kind: str) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every layer of the kind, in the network's order."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, KINDS[kind]))


def sparsity(model: nn.Module) -> list[dict[str, Any]]:
    """One row per conv and linear layer: name, number of weights, of zeros among them, and their share."""
    rows = []
    for name, module in layers(model, "both"):
        zeros = int((module.weight == 0).sum())
        number = module.weight.numel()
        rows.append({"layer": name, "weights": number, "zeros": zeros, "sparsity": zeros / number})
    return rows
