"""Sharded gradients: a batch is computed in a fixed number of micro-batches, by any number of processes.

Gradients, BatchNorm statistics and losses of the shards are added by a balanced tree, so that the same bits come out
whatever process computed which shard. BatchNorm normalises by the statistics of one shard ("ghost batch normalization",
Hoffer, Hubara and Soudry 2017).

Where the bits may depend on the number of processes, `DistributedGradient` computes the same by PyTorch's
DistributedDataParallel (Li et al. 2020).
"""

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightweight.core.errors import bad_param
from lightweight.execution.determinism import derive_seed
from lightweight.execution.ranks import rank, share, world_size
from lightweight.execution.tree_sum import tree_sum

Backward = Callable[[Tensor, float], Tensor]  # computes gradients of a shard by indices and weight, returns its loss


def check_shards(shards: int, batch_size: int, images: int) -> None:
    """Raise InputError unless every shard of a whole batch has two images, without which BatchNorm has no variance."""
    if shards > 1 and min(batch_size, images) < 2 * shards:
        batch = f"train.batch_size = {batch_size}" if batch_size <= images else f"{images} training images"
        raise bad_param("train.shards", shards, f"must leave two images in every shard of a batch: {batch}")


class ShardedGradient:
    """Compute the gradients of a model on a batch in `shards` parts, and the statistics that its layers collect."""

    def __init__(self, model: nn.Module, shards: int) -> None:
        self.model, self.shards = model, shards
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self.counters = [buffer for buffer in model.buffers() if not buffer.is_floating_point()]

    def compute(self, batch: Tensor, seed: int, backward: Backward) -> Tensor:
        """Set the gradients of the mean loss of a batch of image indices (N,), and return that loss, a scalar.

        `seed` decides about dropout, which draws other numbers in every shard. `backward` receives the indices of a
        shard and its share of the batch, by which it must weigh the loss.
        """
        if self.shards == 1:
            torch.manual_seed(derive_seed(seed, 0))
            return backward(batch, 1.0)
        before = [tensor.clone() for tensor in (*self.statistics, *self.counters)]
        total = tree_sum(self._shards(batch, seed, backward, before))
        used = [parameter for parameter in self.parameters if parameter.grad is not None]
        changes = _split(total[1:], [*used, *self.statistics])
        for parameter in used:
            assert parameter.grad is not None
            parameter.grad.copy_(next(changes))
        _move(self.statistics, before, changes)
        return total[0]

    def parts(self, batch: Tensor) -> list[Tensor]:
        """List the indices of the shards of a batch that this process computes; sizes differ by one at most."""
        parts = batch.tensor_split(self.shards)
        return [parts[number] for number in share(self.shards)]

    def _shards(self, batch: Tensor, seed: int, backward: Backward, before: list[Tensor]) -> Iterator[Tensor]:
        """Compute this process's shards, and yield for each its loss, gradients and changes of statistics (n,)."""
        for number, part in zip(share(self.shards), self.parts(batch), strict=True):
            for tensor, old in zip((*self.statistics, *self.counters), before, strict=True):
                tensor.copy_(old)
            for parameter in self.parameters:
                parameter.grad = None
            torch.manual_seed(derive_seed(seed, number))
            weight = len(part) / len(batch)
            loss = backward(part, weight)
            gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
            yield _join([loss, *gradients, *_changes(self.statistics, before, weight)])


class DistributedGradient:
    """Compute the gradients of a model on a batch by DistributedDataParallel: every process its part, all at once.

    The forward pass must go through `model`. Parameters and statistics are equal in all processes after each batch, and
    their bits depend on the number of processes.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = DistributedDataParallel(model, gradient_as_bucket_view=True, forward_sync_buffers=False)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]

    def parts(self, batch: Tensor) -> list[Tensor]:
        """List the indices of the images that this process computes, in one part: its share, or all if they are few."""
        return [batch.tensor_split(world_size())[rank()] if len(batch) >= 2 * world_size() else batch]

    def compute(self, batch: Tensor, seed: int, backward: Backward) -> Tensor:
        """Set the gradients of the mean loss of a batch, and return that loss, as `ShardedGradient.compute` does.

        A batch of fewer than two images for each process is computed as a whole by all of them: BatchNorm needs two.
        Statistics become the mean over the processes, of which each has normalised by its own part. Raises InputError
        for a network with parameters that the loss does not depend on.
        """
        (part,) = self.parts(batch)
        shared = len(part) < len(batch)
        processes = world_size() if shared else 1
        weight = len(part) * processes / len(batch)  # DDP divides sums by the number of processes
        before = [statistic.clone() for statistic in self.statistics]
        torch.manual_seed(derive_seed(seed, rank() if shared else 0))
        loss = backward(part, weight)
        if any(parameter.grad is None for parameter in self.parameters):
            rule = "must be true for a network with parameters that the loss does not depend on"
            raise bad_param("train.exact", False, rule)
        total = _join([loss, *_changes(self.statistics, before, weight)]) / world_size()
        dist.all_reduce(total)
        _move(self.statistics, before, _split(total[1:], self.statistics))
        return total[0]


def _join(tensors: list[Tensor]) -> Tensor:
    """Join tensors of any shapes to one vector."""
    return torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])


def _changes(statistics: list[Tensor], before: list[Tensor], weight: float) -> list[Tensor]:
    """Compute how far statistics have moved, times `weight`; `before` may hold more than these."""
    return [(statistic - _finite(old)) * weight for statistic, old in zip(statistics, before, strict=False)]


def _move(statistics: list[Tensor], before: list[Tensor], changes: Iterator[Tensor]) -> None:
    """Set statistics to what they were before, plus their changes; `before` may hold more than these."""
    for statistic, old in zip(statistics, before, strict=False):
        statistic.copy_(_finite(old) + next(changes))


def _finite(tensor: Tensor) -> Tensor:
    """Return the tensor, or zeros in the place of infinities, with which observers of ranges begin."""
    return torch.where(tensor.isfinite(), tensor, 0)


def _split(vector: Tensor, likes: list[Tensor]) -> Iterator[Tensor]:
    """Yield consecutive parts of a vector in the shapes of the given tensors."""
    for part, like in zip(vector.split([tensor.numel() for tensor in likes]), likes, strict=True):
        yield part.view(like.shape)
