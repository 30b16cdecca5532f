"""Importance: the scores by which pruning chooses weights and channels; those with the lowest scores go first.

`Importance.score_weights` scores the single weights of a layer, for unstructured pruning. `Importance.score_channels`
scores the channels of coupled layers, for structured pruning. A new pruning criterion needs a name in `Criterion` and a
case in each of the two methods; one that needs data, such as gradients, collects them in `prepare`.

`l1` and `l2` are magnitudes (Han et al. 2015). `taylor` is the first-order estimate of the change of the loss without
the weight (Molchanov et al. 2019). `obs` is the change of a layer's outputs without the weight when the others make up
for it (`reconstruction/obs.py`); it has no scores of channels. `random` is the control. The score of a channel is the
mean over all layers that lose the channel together (DepGraph, Fang et al. 2023).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import ValidationInfo
from torch import Tensor, nn

from lightweight.core.module_state import forgetting_caches
from lightweight.data.dataset import Dataset, random_indices
from lightweight.gram.measure import IMAGES_PER_BATCH
from lightweight.reconstruction.obs import measure_saliencies

Criterion = Literal["l1", "l2", "taylor", "random", "obs"]
BATCH_SIZE = 256


def check_criterion(value: Criterion, info: ValidationInfo) -> Criterion:
    """Check that the method of a section, which comes before its criterion, has scores by it."""
    if value == "obs" and info.data.get("method") == "structured":
        raise ValueError("scores single weights, with method: unstructured; repair: true is what it does for channels")
    return value


@dataclass(frozen=True)
class Term:
    """Describe what a layer adds to scores: places along a dimension of its weight, and the members they belong to."""

    weight: Tensor
    dim: int
    indices: Tensor
    members: Tensor


class Importance:
    """Score the weights and channels of a network by one criterion.

    The gradients of `taylor` are those of the mean loss on `num_images` random training images, unaugmented; the
    saliencies of `obs` come from the inputs of layers on the same images.
    """

    def __init__(self, criterion: Criterion, dataset: Dataset, num_images: int, seed: int) -> None:
        self.criterion, self.dataset, self.seed = criterion, dataset, seed
        self.order = random_indices(len(dataset.train), num_images, seed)
        self.generator = torch.Generator()
        self.saliencies: dict[Tensor, Tensor] = {}  # by weight

    def batches(self) -> Iterator[Tensor]:
        """Yield the images as small normalised batches (N, C, H, W), for what is measured of layers' inputs."""
        images = self.dataset.train.take(self.order.to(self.dataset.mean.device))
        return (batch for batch, _ in self.dataset.batches(images, IMAGES_PER_BATCH))

    @property
    def scored_layers(self) -> tuple[type[nn.Module], ...]:
        """Return the layers whose weights are terms of the scores of channels."""
        layers = (nn.modules.conv._ConvNd, nn.Linear, nn.LayerNorm)
        return layers if self.criterion == "taylor" else (*layers, nn.modules.batchnorm._NormBase)

    def prepare(self, model: nn.Module) -> None:
        """Accumulate the loss gradients that `taylor` needs in the parameters of `model`, and reseed `random`.

        Must be called before the model is scored, and again after its weights have changed. For `obs`, measures the
        saliencies.
        """
        self.generator.manual_seed(self.seed)
        if self.criterion == "obs":
            self.saliencies = measure_saliencies(model.eval(), self.batches)
        if self.criterion != "taylor":
            return
        model.eval()
        model.zero_grad()
        frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(True)
        images = self.dataset.train.take(self.order.to(self.dataset.mean.device))
        for batch, labels in self.dataset.batches(images, BATCH_SIZE):
            with forgetting_caches(model):
                (F.cross_entropy(model(batch), labels, reduction="sum") / len(images)).backward()
        for parameter in frozen:
            parameter.requires_grad_(False)

    def score_weights(self, weight: Tensor) -> Tensor:
        """Compute the importance of every element of a weight tensor, in the shape of the tensor, never negative.

        `l1` and `l2` put single weights in the same order.
        """
        match self.criterion:
            case "l1":
                return weight.detach().abs()
            case "l2":
                return weight.detach().square()
            case "taylor":
                return (weight.detach() * (0 if weight.grad is None else weight.grad)).abs()
            case "random":
                return torch.rand(weight.shape, generator=self.generator).to(weight.device)
            case "obs":
                return self.saliencies[weight].to(weight)

    def score_channels(self, size: int, terms: list[Term]) -> Tensor:
        """Compute the importance of every member of a group (size,), never negative, by the terms of its layers.

        The mean over the members is 1 in every group, but for `random`, so that the scores of different groups can be
        compared. All scores are NaN in a group whose weights are all zero.
        """
        assert self.criterion != "obs", "obs scores single weights"
        if self.criterion == "random":
            return torch.rand(size, generator=self.generator)
        scores, numbers = torch.zeros(size), torch.zeros(size)
        for term in terms:
            places = term.indices.to(term.weight.device)
            values = self._strengths(term.weight, term.dim)[places].cpu()
            scores.scatter_add_(0, term.members, values)
            numbers[term.members.unique()] += 1
        scores /= numbers.clamp(min=1)
        return scores / scores.mean()

    def _strengths(self, weight: Tensor, dim: int) -> Tensor:
        """Compute the importance of every place along a dimension of a weight."""
        values = weight.detach()
        if self.criterion == "taylor":
            values = values * (0 if weight.grad is None else weight.grad)
        values = values.abs().pow(2 if self.criterion == "l2" else 1)
        return values.transpose(0, dim).flatten(1).sum(1) if values.dim() > 1 else values
