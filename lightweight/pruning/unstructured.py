"""Unstructured pruning sets single weights to zero (Han et al. 2015): the file compresses, nothing becomes faster."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightweight.pruning.importance import Importance


class WeightGroups:
    """Represent the given layers as pruning groups of single weights: the `PruningGroups` of unstructured pruning.

    A mask per layer marks the weights that are zero. While the network is trained, hooks set the gradients of masked
    weights to zero, so that these do not count in a clipped norm, and `apply_masks` undoes the changes that momentum
    and averages of earlier values make.
    """

    def __init__(self, model: nn.Module, layers: dict[str, nn.Conv2d | nn.Linear]) -> None:
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        shared = {id(layer.weight): (name, layer.weight) for name, layer in reversed(layers.items())}
        self.weights = dict(reversed(shared.values()))  # a weight that two layers share counts once
        self.sizes = {name: weight.numel() for name, weight in self.weights.items()}
        self.layers = {name: [name] for name in self.weights}
        self.skipped = dict.fromkeys(layers.keys() - self.weights.keys(), "its weights are those of another layer")
        self.masks = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in self.weights.items()}
        self.hooks = [
            weight.register_hook(lambda gradient, name=name: gradient.masked_fill(self.masks[name], 0))
            for name, weight in self.weights.items()
            if weight.requires_grad  # frozen weights have no gradient and do not change
        ]

    def scores(self, importance: Importance) -> dict[str, Tensor]:
        """Compute the importance of every weight (weights,) by layer; masked weights score below all others."""
        scores = {name: importance.score_weights(weight).flatten() for name, weight in self.weights.items()}
        return {name: score.masked_fill(self.masks[name].flatten(), -1) for name, score in scores.items()}

    def allowed_count(self, count: int, name: str) -> int:
        """Limit the number of weights to prune of a layer: each keeps one."""
        return min(count, self.sizes[name] - 1)

    def mask_least_important(self, counts: dict[str, int], scores: dict[str, Tensor]) -> None:
        """Set as many weights of each layer to zero as `counts` asks for, the least important ones."""
        for name, count in counts.items():
            least = scores[name].topk(count, largest=False).indices
            flat = torch.zeros_like(scores[name], dtype=torch.bool)
            flat[least] = True
            self.masks[name] = flat.view(self.weights[name].shape)
        self.apply_masks()

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set the masked weights to zero."""
        for name, weight in self.weights.items():
            weight.masked_fill_(self.masks[name], 0)

    def remove_channels(self) -> None:
        """Do nothing: unstructured pruning keeps the shapes of all layers."""

    def clear_masks(self) -> None:
        """Mask no weight any longer, so that all of them can change."""
        self.masks = {name: torch.zeros_like(mask) for name, mask in self.masks.items()}

    def remove_hooks(self) -> None:
        """Remove the hooks on the gradients of the weights."""
        for hook in self.hooks:
            hook.remove()

    def uncovered(self) -> dict[str, tuple[float, str]]:
        """Return nothing: zeros spare no MACs."""
        return {}

    def cost(self, counts: dict[str, int], kind: Literal["parameters", "macs"]) -> float:
        """Compute the share of the parameters that is not pruned; MACs stay 1, for zeros are multiplied as well."""
        return 1 - sum(counts.values()) / self.num_parameters if kind == "parameters" else 1.0

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.masks = {name: mask.to(self.weights[name].device) for name, mask in state["masks"].items()}
