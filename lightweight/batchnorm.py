"""BatchNorm re-estimation: running means and variances are computed anew after weights were averaged or pruned.

The images are augmented as in training (Wu and Johnson 2021, "Rethinking Batch in BatchNorm", section 3). Those as they
are stored have other means and variances than the weights were trained with, which costs accuracy.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightweight.core.params import Params
from lightweight.data.augmentation import AugmentParams, augment, random_numbers
from lightweight.data.dataset import Dataset, count_batches, random_indices, split_batches
from lightweight.execution.averaging import average, own_batches
from lightweight.execution.determinism import derive_seed


class BnUpdateParams(Params):
    """Describe section `bn_update` of params.yaml."""

    num_images: int = Field(ge=0)
    batch_size: int = Field(ge=2, le=65_536)


def reestimate_batchnorm(
    model: nn.Module, dataset: Dataset, num_images: int, batch_size: int, seed: int, augmentation: AugmentParams
) -> None:
    """Re-estimate the running statistics of all BatchNorm layers in place, from random training images, augmented.

    Every batch has the same weight, so a last incomplete batch is left out unless it is the only one. Nothing changes
    without images or without BatchNorm layers.
    """
    norms = [norm for norm in model.modules() if isinstance(norm, _BatchNorm) and norm.running_mean is not None]
    order = random_indices(len(dataset.train), num_images, seed)
    if len(order) > batch_size:
        order = order[: len(order) // batch_size * batch_size]
    if len(order) < 2 or not norms:
        return
    images = dataset.train.take(order.to(dataset.mean.device))
    batches = count_batches(images, batch_size)
    numbers = random_numbers(len(images), seed)
    read = images.read(parts := split_batches(images, batch_size, own_batches(batches)))
    augmented = (augment(pixels, augmentation, numbers[part]) for part, (pixels, _) in zip(parts, read, strict=True))
    statistics = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]

    def measure(number: int) -> Tensor:
        torch.manual_seed(derive_seed(seed, number))  # for dropout, which is on while statistics are taken
        model(dataset.normalize(next(augmented)))
        return torch.cat([buffer.cpu().double() for buffer in statistics])

    with torch.no_grad(), _of_single_batches(model, norms):
        means = average(measure, batches, sum(map(len, statistics)))
    for buffer, mean in zip(statistics, means.split([len(buffer) for buffer in statistics]), strict=True):
        buffer.copy_(mean)
    for norm in norms:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.fill_(batches)


@contextmanager
def _of_single_batches(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Let the running statistics be those of the last batch alone, in training mode; restores modes and momenta."""
    training = [module for module in model.modules() if module.training]
    momenta = [norm.momentum for norm in norms]
    model.train()
    for norm in norms:
        norm.momentum = 1.0
    yield
    model.eval()
    for module in training:
        module.training = True
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
