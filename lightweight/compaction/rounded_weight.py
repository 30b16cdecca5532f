"""Weights that are integers times a scale during training, and the bits that these integers take in a file.

Entropy-penalised training after Oktay, Ballé, Singh and Shrivastava 2020 (Scalable Model Compression by Entropy
Penalized Reparameterization); the rounding passes gradients straight through (Bengio, Léonard and Courville 2013).
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

LARGEST = 31  # integer in training
FORGETTING = 0.9  # share of the counts that a step keeps
PRIOR = 0.3  # count of every integer, before any is seen
SMALL = 1000  # weights of a layer, below which steps are finer
FINE = 0.55  # of the standard deviation of such a layer


class RoundedWeight(nn.Module):
    """Turn a weight (M, ...) into `gain * step * round(weight / step)`, with a learned gain for each of M channels."""

    step: Tensor
    counts: Tensor

    def __init__(self, weight: Tensor, step: float) -> None:
        super().__init__()
        share = step if weight.numel() >= SMALL else min(step, FINE)
        deviation = float(weight.detach().double().std(correction=0)) or 1.0
        self.gain = nn.Parameter(torch.ones(len(weight), *[1] * (weight.ndim - 1), device=weight.device))
        self.register_buffer("step", torch.tensor(share * deviation, dtype=torch.float32, device=weight.device))
        self.register_buffer("counts", torch.zeros(2 * LARGEST + 1, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """Round a weight; its gradient is that of the rounded one."""
        rounded = self.integers(weight) * self.step
        return self.gain * (weight + (rounded - weight).detach())

    def integers(self, weight: Tensor) -> Tensor:
        """Return the integers of a weight, as numbers of its own type."""
        return (weight.detach() / self.step).round().clamp(-LARGEST, LARGEST)

    @torch.no_grad()
    def add_gradient(self, weight: nn.Parameter, rate: float) -> None:
        """Add to the gradient of a weight that of its bits times `rate`, and count its integers.

        An integer costs the logarithm of one over its share of the counts; between two integers, the cost is linear.
        """
        position = (weight / self.step).clamp(-LARGEST + 0.001, LARGEST - 0.001)
        places = (self.integers(weight) + LARGEST).long().flatten()
        counts = torch.bincount(places, minlength=2 * LARGEST + 1).to(self.counts.dtype)
        self.counts.lerp_(counts, 1 - FORGETTING if self.counts.any() else 1.0)
        costs = self.costs()
        below = (position.floor() + LARGEST).long()
        slope = (costs[1:] - costs[:-1])[below] / self.step
        weight.grad = slope * rate if weight.grad is None else weight.grad.add_(slope, alpha=rate)

    def costs(self) -> Tensor:
        """Return the bits of each integer from -LARGEST to LARGEST."""
        shares = self.counts + PRIOR
        return -(shares / shares.sum()).log2()

    def bits(self, weight: Tensor) -> float:
        """Estimate the bits of a weight."""
        return float(self.costs()[(self.integers(weight) + LARGEST).long()].double().sum())


class RoundedNetwork:
    """Round the weights of all convolutions and linear layers of a network, in place, and penalise their bits."""

    def __init__(self, network: nn.Module, step: float, rate: float) -> None:
        self.network, self.rate = network, rate
        self.rate_share = torch.zeros(())  # of `rate` that is in force: it rises in training
        self.network.register_buffer("rate_share", self.rate_share)  # by which a resumed run goes on
        for _, module, name in list_weights(network):
            parametrize.register_parametrization(module, name, RoundedWeight(getattr(module, name), step))

    def parts(self) -> Iterator[tuple[str, RoundedWeight, nn.Parameter]]:
        """Yield the name of each rounded weight, its rounding and the weight before it."""
        for name, module in self.network.named_modules():
            for key, chain in getattr(module, "parametrizations", {}).items():
                yield f"{name}.{key}".removeprefix("."), chain[0], chain.original

    def add_penalty(self) -> None:
        """Add the gradient of the bits of all weights to the gradients."""
        rate = self.rate * float(self.rate_share)
        for _, rounding, weight in self.parts():
            if weight.requires_grad:
                rounding.add_gradient(weight, rate)

    def raise_rate(self, done: float, warmup: float) -> None:
        """Set the share of the rate when a share `done` of training is over: it rises over the share `warmup`."""
        self.rate_share.fill_(min(1.0, done / warmup))

    def bits(self) -> float:
        """Estimate the bits of all weights."""
        return sum(rounding.bits(weight) for _, rounding, weight in self.parts())

    def finish(self) -> dict[str, Tensor]:
        """Leave the rounded weights in the network, as parameters, and return their integers by name."""
        integers = {name: rounding.integers(weight).to(torch.int32) for name, rounding, weight in self.parts()}
        for _, module in list(self.network.named_modules()):
            for key in list(getattr(module, "parametrizations", {})):
                parametrize.remove_parametrizations(module, key, leave_parametrized=True)
        del self.network.rate_share
        return integers


def list_weights(network: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """List the weights that layers multiply by: of convolutions, linear layers and attention, with their layer."""
    layers = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)
    found = []
    for name, module in network.named_modules():
        for key in ("weight", "in_proj_weight") if isinstance(module, layers) else ():
            if getattr(module, key, None) is not None:
                found.append((f"{name}.{key}".removeprefix("."), module, key))
    return found
