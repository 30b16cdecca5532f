"""Repair of a pruned network without training: its weights are fitted to the outputs that its layers gave before.

Each layer that has lost weights, or channels that it reads, gets the weights of least squared error on the inputs of
the network before, one layer after another (Frantar, Singh and Alistarh 2022; for channels, He et al. 2017). Layers
that have only lost outputs, such as depthwise convolutions, have nothing to make up for.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lightweight.gram.columns import ReconstructedLayer, merge_weight, split_weight
from lightweight.gram.measure import Gram, list_reconstructed, measure_grams
from lightweight.reconstruction.least_squares import refit

Batches = Callable[[], Iterator[Tensor]]  # of normalised images (N, C, H, W); may be called several times


@torch.no_grad()
def repair(network: nn.Module, before: nn.Module, batches: Batches) -> None:
    """Change the weights of `network` that are not zero so that its layers give the outputs of the network `before`.

    Both have the same shapes: what is pruned is zero and stays zero. Frozen weights, and weights that several layers
    share, are left alone. Expects `before` in evaluation mode.
    """
    own = list_reconstructed(network)
    damaged = {
        name: layer
        for name, layer in list_repairable(before).items()
        if own[name].weight.requires_grad and _has_lost(own[name].weight, layer.weight)
    }
    for name, gram in measure_grams(before, batches, damaged):
        _repair_layer(own[name], damaged[name], gram)


def list_repairable(network: nn.Module) -> dict[str, ReconstructedLayer]:
    """List by name the layers with weights of their own, which they do not compute and no other layer shares."""
    layers = list_reconstructed(network)
    users = Counter(id(layer.weight) for layer in layers.values() if isinstance(layer.weight, nn.Parameter))
    return {name: layer for name, layer in layers.items() if users[id(layer.weight)] == 1}


def _has_lost(weight: Tensor, before: Tensor) -> bool:
    """Return whether some output of a layer has lost a part of its weights, and not all of them."""
    kept, lost = (weight != 0).flatten(1), ((weight == 0) & (before != 0)).flatten(1)
    return bool((kept.any(1) & lost.any(1)).any())


def _repair_layer(layer: ReconstructedLayer, before: ReconstructedLayer, gram: Gram) -> None:
    """Fit the weights of a layer that are not zero; a bias, where there is one, makes up for mean outputs."""
    rows = split_weight(layer, before.weight.cpu().double())
    kept = split_weight(layer, layer.weight.cpu()) != 0
    matrix = gram.matrix
    if layer.bias is not None and gram.positions:
        matrix = matrix - gram.sums[..., None] * gram.mean[:, None]
    fitted = refit(rows, kept, matrix)
    if layer.bias is not None:
        shift = (rows - fitted).mul_(gram.mean[:, None]).where(kept.any(-1, keepdim=True), 0.0).cumsum(-1)
        shift[..., :-1] = 0  # the last column holds the sum, which stays after merging
        layer.bias += merge_weight(layer, shift).flatten(1).sum(1).to(layer.bias)
    layer.weight.copy_(merge_weight(layer, fitted))
