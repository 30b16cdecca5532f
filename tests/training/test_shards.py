"""A sharded gradient is that of the whole batch; statistics and losses are the means over shards."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightweight.core.errors import InputError
from lightweight.training.shards import ShardedGradient, check_shards
from tests.examples import different, state


def model_and_batch(*layers: nn.Module) -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return nn.Sequential(*layers), torch.randn(12, 5, generator=generator), torch.arange(12) % 3


def compute(model: nn.Module, images: Tensor, labels: Tensor, shards: int, size: int = 12, seed: int = 0) -> Tensor:
    model.zero_grad()
    model.train()

    def backward(indices: Tensor, weight: float) -> Tensor:
        loss = F.cross_entropy(model(images[indices]), labels[indices]) * weight
        loss.backward()
        return loss.detach()

    return ShardedGradient(model, shards).compute(torch.arange(size), seed, backward)


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("size", [12, 11, 9])
@pytest.mark.parametrize("shards", [2, 4])
def test_gradients_and_loss_are_those_of_the_whole_batch_also_where_it_does_not_divide(shards, size):
    torch.manual_seed(0)
    model, images, labels = model_and_batch(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    whole = compute(model, images, labels, 1, size)
    expected = gradients(model)
    torch.testing.assert_close(compute(model, images, labels, shards, size), whole)
    torch.testing.assert_close(gradients(model), expected)


def test_batchnorm_normalises_by_a_shard_and_moves_by_the_mean_of_the_shards():
    model, images, labels = model_and_batch(nn.BatchNorm1d(5), nn.Linear(5, 3))
    compute(model, images, labels, 4)
    norm = model[0]
    parts = images.view(4, 3, 5)
    torch.testing.assert_close(norm.running_mean, 0.1 * parts.mean((0, 1)))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * parts.var(1).mean(0))
    assert norm.num_batches_tracked == 1, "a step, not four"


def test_statistics_that_do_not_move_keep_their_bits():
    model, images, labels = model_and_batch(nn.BatchNorm1d(5), nn.Linear(5, 3))
    norm = model[0]
    norm.running_mean += torch.rand(5)
    norm.momentum = 0.0
    before = state(model)
    compute(model, images, labels, 4, size=11)
    assert different(before, state(model)) == {"0.num_batches_tracked"}


def test_a_range_that_begins_at_infinity_becomes_the_mean_over_shards():
    class Range(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("largest", torch.tensor(-float("inf")))

        def forward(self, values: Tensor) -> Tensor:
            self.largest.copy_(values.max())
            return values

    model, images, labels = model_and_batch(Range(), nn.Linear(5, 3))
    compute(model, images, labels, 2)
    torch.testing.assert_close(model[0].largest, images.view(2, 30).max(1).values.mean())


def test_dropout_draws_other_numbers_in_every_shard_and_the_same_for_equal_seeds():
    model, images, labels = model_and_batch(nn.Dropout(0.5), nn.Linear(5, 3))
    images[6:], labels[6:] = images[:6], labels[:6]  # equal shards
    seen: list[Tensor] = []
    model[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    for seed in (0, 0, 1):
        compute(model, images, labels, 2, seed=seed)
    first, second = seen[:2]
    assert not torch.equal(first, second)
    assert torch.equal(first, seen[2])
    assert torch.equal(second, seen[3])
    assert not torch.equal(first, seen[4])


def test_frozen_and_unused_parameters_have_no_gradient():
    model, images, labels = model_and_batch(nn.Linear(5, 4), nn.Linear(4, 3))
    model[0].weight.requires_grad_(False)
    model.unused = nn.Parameter(torch.ones(2))
    model.forward = lambda values: model[1](model[0](values))
    compute(model, images, labels, 2)
    assert model[0].weight.grad is None
    assert model.unused.grad is None
    assert model[1].weight.grad is not None


@pytest.mark.parametrize(
    ("batch_size", "images", "named"), [(7, 99, "train.batch_size = 7"), (99, 7, "7 training images")]
)
def test_a_shard_of_fewer_than_two_images_is_refused_by_name(batch_size, images, named):
    with pytest.raises(InputError, match=f"train.shards = 4: must leave two images in every shard of a batch: {named}"):
        check_shards(4, batch_size, images)
    check_shards(1, batch_size, images)
    check_shards(2, batch_size, images)
