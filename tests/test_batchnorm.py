"""Re-estimation fits BatchNorm statistics to the weights, changes nothing else, and raises accuracy after pruning."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lightweight.batchnorm import reestimate_batchnorm
from lightweight.data.augmentation import OFF
from lightweight.data.dataset import Split
from lightweight.networks.validation import validate
from tests.examples import BNNET, different, new, prune_in_place, state, trained

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def record_inputs(layer: nn.Module, update) -> list[Tensor]:
    """Record the batches that `layer` receives while `update` runs."""
    batches = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: batches.append(inputs[0].clone()))
    update()
    hook.remove()
    return batches


def test_only_the_statistics_of_batchnorm_change(tiny_dataset):
    model = deepcopy(trained(BNNET, tiny_dataset))
    before, attributes = state(model), [(module.training, vars(module).get("momentum")) for module in model.modules()]
    reestimate_batchnorm(model, tiny_dataset, num_images=200, batch_size=64, seed=0, augmentation=OFF)
    assert different(before, model.state_dict()) == {name for name in before if name.endswith(STATISTICS)}
    assert [(module.training, vars(module).get("momentum")) for module in model.modules()] == attributes


def test_the_statistics_become_the_means_over_batches_of_the_batch_statistics(tiny_dataset):
    model = deepcopy(trained(BNNET, tiny_dataset))
    for layer in (module for module in model if isinstance(module, nn.BatchNorm2d)):
        batches = record_inputs(
            layer,
            lambda: reestimate_batchnorm(model, tiny_dataset, num_images=300, batch_size=64, seed=0, augmentation=OFF),
        )
        means = torch.stack([batch.double().mean((0, 2, 3)) for batch in batches])
        variances = torch.stack([batch.double().var((0, 2, 3), correction=1) for batch in batches])
        torch.testing.assert_close(layer.running_mean.double(), means.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.running_var.double(), variances.mean(0), rtol=1e-4, atol=1e-5)
        assert layer.num_batches_tracked == 4


@pytest.mark.parametrize(
    ("images", "sizes"), [(128, [64, 64]), (200, [64, 64, 64]), (64, [64]), (65, [64]), (50, [50]), (9999, [64] * 4)]
)
def test_a_last_incomplete_batch_is_left_out_unless_it_is_the_only_one(tiny_dataset, images, sizes):
    model = new(BNNET)
    batches = record_inputs(
        model, lambda: reestimate_batchnorm(model, tiny_dataset, images, batch_size=64, seed=0, augmentation=OFF)
    )
    assert [len(batch) for batch in batches] == sizes


def test_without_augmentation_the_images_are_distinct_training_images_drawn_by_the_seed(tiny_dataset):
    model = new(BNNET)

    def images(seed: int) -> Tensor:
        return torch.cat(
            record_inputs(model, lambda: reestimate_batchnorm(model, tiny_dataset, 128, 64, seed, augmentation=OFF))
        ).flatten(1)

    first = images(1)
    stored = tiny_dataset.normalize(tiny_dataset.train.images).flatten(1)
    indices = torch.cdist(first, stored).argmin(1)
    assert torch.equal(first, stored[indices])
    assert len(indices.unique()) == 128
    assert not torch.equal(indices, indices.sort().values)
    assert torch.equal(first, images(1))
    assert not torch.equal(first, images(2))


def test_images_are_augmented_as_in_training_each_by_numbers_of_its_own(tiny_dataset):
    model, bright = new(BNNET), replace(tiny_dataset, train=filled_with(tiny_dataset.train, 200))
    black = bright.normalize(torch.zeros(1, *bright.train.images.shape[1:], dtype=torch.uint8)).flatten()[0]
    cropping = OFF.model_copy(update={"crop": 2})

    (first, second) = record_inputs(model, lambda: reestimate_batchnorm(model, bright, 128, 64, 0, cropping))

    borders = torch.cat([first, second]).isclose(black)
    assert borders[:, :, 2:-2, 2:-2].sum() == 0  # at most two pixels of a padded side are seen
    share = borders[:, :, 0].all(2).float().mean().item()  # the first row is padding for two of the five cuts
    assert share == pytest.approx(0.4, abs=0.15)
    assert not torch.equal(first, second)
    again = record_inputs(model, lambda: reestimate_batchnorm(model, bright, 128, 64, 0, cropping))
    assert torch.equal(first, again[0])


def test_statistics_of_augmented_images_suit_weights_that_were_trained_with_them(tiny_dataset):
    faint = replace(tiny_dataset, train=filled_with(tiny_dataset.train, 100))
    model = nn.Sequential(nn.BatchNorm2d(1))
    reestimate_batchnorm(model, faint, 128, 64, 0, OFF.model_copy(update={"cutout": 8}))
    assert model[0].running_mean.item() < faint.normalize(faint.train.images[:1]).mean().item()
    assert model[0].running_var.item() > 0.01


def filled_with(split: Split, value: int) -> Split:
    return replace(split, images=torch.full_like(split.images, value))


@pytest.mark.parametrize(("network", "images"), [(BNNET, 0), (BNNET, 1), ("convnet", 300)])
def test_without_a_batch_or_without_batchnorm_nothing_changes(tiny_dataset, network, images):
    model = deepcopy(trained(network, tiny_dataset))
    before = state(model)
    reestimate_batchnorm(model, tiny_dataset, images, batch_size=64, seed=0, augmentation=OFF)
    assert not different(before, model.state_dict())


@pytest.mark.parametrize("amount", [0.7, 0.9])
def test_re_estimation_raises_the_accuracy_after_one_shot_pruning(tiny_dataset, amount):
    model = deepcopy(trained(BNNET, tiny_dataset))
    prune_in_place(model, amount=amount, scope="global")
    _, before = validate(model, tiny_dataset, tiny_dataset.val)
    reestimate_batchnorm(model, tiny_dataset, num_images=300, batch_size=100, seed=0, augmentation=OFF)
    _, after = validate(model, tiny_dataset, tiny_dataset.val)
    assert after > before
