"""BatchNorm statistics fit the weights again after these were averaged or pruned; nothing else changes."""

from collections.abc import Callable

import torch
from pydantic import Field
from torch import nn
from torch.optim.swa_utils import update_bn

from lightweight.core.params import Params
from lightweight.dataset import Dataset, random_indices


class BnUpdateParams(Params):
    num_images: int = Field(ge=0)
    batch_size: int = Field(ge=2, le=65_536)


def make_bn_update(dataset: Dataset, num_images: int, seed: int) -> Callable[[nn.Module], None]:
    """`update_batchnorm` of a model, in batches of 256, as a function of the model alone."""

    def bn_update(model: nn.Module) -> None:
        torch.manual_seed(seed)  # dropout before BatchNorm draws, and must not depend on what was done before
        update_batchnorm(model, dataset, num_images, batch_size=256, seed=seed)

    return bn_update


def update_batchnorm(model: nn.Module, dataset: Dataset, num_images: int, batch_size: int, seed: int) -> None:
    """Re-estimate running means and variances in place, from `num_images` random training images, unaugmented.

    Every batch weighs the same, so a last incomplete one is left out unless it is the only one. No images, or a
    model without BatchNorm: no change.
    """
    order = random_indices(len(dataset.train), num_images, seed)
    if len(order) > batch_size:
        order = order[: len(order) // batch_size * batch_size]
    if len(order) > 1:
        images = dataset.train.take(order.to(dataset.mean.device))
        update_bn((batch for batch, _ in dataset.batches(images, batch_size)), model)
