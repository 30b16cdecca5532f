"""BatchNorm re-estimation: running means and variances are computed anew after weights were averaged or pruned."""

from pydantic import Field
from torch import nn
from torch.optim.swa_utils import update_bn

from lightweight.core.params import Params
from lightweight.dataset import Dataset, random_indices


class BnUpdateParams(Params):
    """Describe section `bn_update` of params.yaml."""

    num_images: int = Field(ge=0)
    batch_size: int = Field(ge=2, le=65_536)


def reestimate_batchnorm(model: nn.Module, dataset: Dataset, num_images: int, batch_size: int, seed: int) -> None:
    """Re-estimate the running statistics of all BatchNorm layers in place, from random training images, unaugmented.

    Every batch has the same weight, so a last incomplete batch is left out unless it is the only one. Nothing changes
    without images or without BatchNorm layers.
    """
    order = random_indices(len(dataset.train), num_images, seed)
    if len(order) > batch_size:
        order = order[: len(order) // batch_size * batch_size]
    if len(order) > 1:
        images = dataset.train.take(order.to(dataset.mean.device))
        update_bn((batch for batch, _ in dataset.batches(images, batch_size)), model)
