"""Unstructured pruning zeroes single weights (Han et al. 2015): the file can be compressed, nothing gets faster."""

from typing import Any

import torch
from torch import Tensor, nn

from lightweight.pruning.importance import Importance


class WeightGroups:
    """The weights of the given layers, those at zero among them, and what holds them there in training.

    Gradients of zeroed weights are zero, so that they do not count in a clipped norm; `hold` undoes what momentum
    and averages of earlier values put there.
    """

    def __init__(self, model: nn.Module, layers: dict[str, nn.Module]) -> None:
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        shared = {id(layer.weight): (name, layer.weight) for name, layer in reversed(layers.items())}
        self.weights = dict(reversed(shared.values()))  # one that two layers share counts once
        self.sizes = {name: weight.numel() for name, weight in self.weights.items()}
        self.layers = {name: [name] for name in self.weights}
        self.masked = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in self.weights.items()}
        self.hooks = [
            weight.register_hook(lambda gradient, name=name: gradient.masked_fill(self.masked[name], 0))
            for name, weight in self.weights.items()
            if weight.requires_grad  # frozen ones do not change
        ]

    def scores(self, importance: Importance) -> dict[str, Tensor]:
        """The importance of every weight (sizes[layer],); of those at zero below all others."""
        found = {name: importance.of_weights(weight).flatten() for name, weight in self.weights.items()}
        return {name: score.masked_fill(self.masked[name].flatten(), -1) for name, score in found.items()}

    def allowed_count(self, count: int, size: int) -> int:
        """How many of `size` weights can be removed where `count` are wanted: a layer without any would be blind."""
        return min(count, size - 1)

    def mask_least_important(self, counts: dict[str, int], scores: dict[str, Tensor]) -> None:
        """Zero so many of each layer's weights altogether, the least important first."""
        for name, count in counts.items():
            least = scores[name].topk(count, largest=False).indices
            flat = torch.zeros_like(scores[name], dtype=torch.bool)
            flat[least] = True
            self.masked[name] = flat.view(self.weights[name].shape)
        self.apply_masks()

    @torch.no_grad()
    def apply_masks(self) -> None:
        for name, weight in self.weights.items():
            weight.masked_fill_(self.masked[name], 0)

    def remove_channels(self) -> None:
        """Zeros are all that this kind of pruning leaves."""

    def clear_masks(self) -> None:
        """Let zeros change again."""
        self.masked = {name: torch.zeros_like(mask) for name, mask in self.masked.items()}

    def cost(self, counts: dict[str, int], kind: str) -> float:
        """The share of the network's parameters that is not pruned; MACs stay: zeros are multiplied, too."""
        return 1 - (kind == "parameters") * sum(counts.values()) / self.parameters

    def remove_hooks(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def state_dict(self) -> dict[str, Any]:
        return {"zeroed": self.masked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.masked = {name: mask.to(self.weights[name].device) for name, mask in state["zeroed"].items()}
