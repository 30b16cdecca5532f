"""How much a weight or channel matters: by its magnitude, by the loss without it, or by chance (the control).

Magnitude (Han et al. 2015), the first-order Taylor expansion of the loss (Molchanov et al. 2019), and for channels
their sum over all layers that lose a channel together (DepGraph, Fang et al. 2023), by torch-pruning.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightweight.dataset import Dataset, random_indices

Kind = Literal["l1", "l2", "taylor", "random"]
BATCH_SIZE = 256


class Importance:
    """Scores of one kind. Gradients are of the mean loss on `num_images` random training images, unaugmented."""

    def __init__(self, kind: Kind, dataset: Dataset, num_images: int, seed: int) -> None:
        self.kind, self.dataset, self.seed = kind, dataset, seed
        self.order = random_indices(len(dataset.train), num_images, seed)
        self.generator = torch.Generator()

    def prepare(self, model: nn.Module) -> None:
        """What scores of the model as it is now rest on."""
        self.generator.manual_seed(self.seed)
        if self.kind != "taylor":
            return
        model.eval()
        model.zero_grad()
        frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(True)
        images = self.dataset.train.take(self.order.to(self.dataset.mean.device))
        for batch, labels in self.dataset.batches(images, BATCH_SIZE):
            (F.cross_entropy(model(batch), labels, reduction="sum") / len(images)).backward()
        for parameter in frozen:
            parameter.requires_grad_(False)

    def of_weights(self, weight: nn.Parameter) -> Tensor:
        """Not negative, of the weight's shape; l1 and l2 put single weights in the same order."""
        match self.kind:
            case "l1":
                return weight.detach().abs()
            case "l2":
                return weight.detach().square()
            case "taylor":
                return (weight.detach() * (0 if weight.grad is None else weight.grad)).abs()
            case "random":
                return torch.rand(weight.shape, generator=self.generator).to(weight.device)

    def of_channels(self) -> Callable[..., Tensor]:
        """A function of torch-pruning's groups: (channels,), mean 1 in each group, so that groups compare."""
        from torch_pruning import importance

        match self.kind:
            case "l1" | "l2":
                return importance.GroupMagnitudeImportance(p=int(self.kind[1]))
            case "taylor":
                return importance.GroupTaylorImportance()
            case "random":
                return lambda group: torch.rand(len(group[0].idxs), generator=self.generator)
