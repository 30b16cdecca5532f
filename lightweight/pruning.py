"""The smallest weights become exactly zero, and stay zero while the others recover.

Magnitude pruning (Han et al. 2015) with the masks of torch.nn.utils.prune.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.utils import prune as masks

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

    The share holds in each layer or over all of them together. `recover` fine-tunes the masked model; its zeros
    survive. An amount of 0 changes nothing and recovers nothing. Raises InputError when no layer is of the kind.
    """
    chosen = [module for _, module in layers(model, params.layers)]
    if not chosen:
        raise bad_param("prune.layers", params.layers, "the network has no such layer")
    if params.amount == 0:
        return
    model.to(memory_format=torch.contiguous_format)  # which is what the masks are computed on
    if params.scope == "global":
        weights = [(module, "weight") for module in chosen]
        masks.global_unstructured(weights, pruning_method=masks.L1Unstructured, amount=params.amount)
    else:
        for module in chosen:
            masks.l1_unstructured(module, "weight", amount=params.amount)
    recover(model.to(memory_format=torch.channels_last))
    for module in chosen:
        masks.remove(module, "weight")


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
