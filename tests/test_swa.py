"""The averaged weights are the arithmetic mean of the weights after each epoch, along a rate that becomes constant."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.checkpointing.session import Session
from lightweight.core.errors import InputError
from lightweight.networks.model_file import ModelFile
from lightweight.swa import (
    SwaParams,
    SwaResult,
    average,
    average_weights,
    initial_lr,
    make_swa_schedule,
    remaining_epochs,
)
from lightweight.training.history import History
from lightweight.training.loop import train
from lightweight.training.optimizer import make_optimizer
from tests.examples import BNNET, augment_params, different, new, state, train_params, training_settings

Conv, Norm = nn.Conv2d, nn.BatchNorm2d
LR, SWA_LR, STEPS = 0.01, 0.002, 5


def swa_params(**changes) -> SwaParams:
    return SwaParams(**{"start": 5, "lr": SWA_LR, "anneal_epochs": 2} | changes)


def run(model: nn.Module, dataset, states: list[dict[str, Tensor]]) -> Iterator[int]:
    """Train for three epochs, yield the rows, and append the state after each epoch to `states`."""
    for row in train(model, Session(dataset, 0), training_settings(train_params(lr=LR), 3), range(1, 4)):
        states.append(state(model))
        yield row


def test_the_weights_become_the_mean_of_the_weights_after_each_epoch(tiny_dataset):
    model, states = new(BNNET), []
    list(average(model, run(model, tiny_dataset, states), Checkpointer()))
    assert len(states) == 3
    for name, parameter in model.named_parameters():
        mean = torch.stack([state[name].double() for state in states]).mean(0)
        torch.testing.assert_close(parameter.detach().double(), mean, rtol=1e-6, atol=1e-8)
        assert not torch.equal(parameter, states[-1][name])


def test_the_batchnorm_statistics_become_those_of_the_last_weights(tiny_dataset):
    model, states = new(BNNET), []
    list(average(model, run(model, tiny_dataset, states), Checkpointer()))
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, states[-1][name])
        assert not torch.equal(buffer, states[0][name])


def test_the_statistics_are_those_of_images_augmented_as_in_training(tiny_dataset, monkeypatch):
    augmentations = []
    monkeypatch.setattr("lightweight.swa.reestimate_batchnorm", lambda *given: augmentations.append(given[-1]))
    session = Session(tiny_dataset, 0, augmentation=augment_params(crop=2))
    params = train_params(lr=LR, epochs=2, batch_size=60)
    average_weights(ModelFile(new(BNNET), "bnnet", {}), session, swa_params(start=1), params, None)
    assert augmentations == [session.augmentation]


def test_at_the_end_the_batchnorm_statistics_are_those_of_the_averaged_weights(tiny_dataset):
    model = new(BNNET)
    conv, norm = (next(module for module in model.modules() if isinstance(module, kind)) for kind in (Conv, Norm))
    params = train_params(lr=LR, epochs=3, batch_size=60)
    average_weights(ModelFile(model, "bnnet", {}), Session(tiny_dataset, 0), swa_params(start=1), params, None)
    with torch.no_grad():
        activations = conv(tiny_dataset.normalize(tiny_dataset.train.images))
    assert len(tiny_dataset.train) % 60 == 0
    torch.testing.assert_close(norm.running_mean, activations.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_averaging_does_not_change_the_training_itself(tiny_dataset):
    averaged, alone, states, expected = new(BNNET), new(BNNET), [], []
    rows = list(average(averaged, run(averaged, tiny_dataset, states), Checkpointer()))
    assert rows == list(run(alone, tiny_dataset, expected))
    assert not any(different(*pair) for pair in zip(states, expected, strict=True))


def test_the_weights_before_the_first_epoch_do_not_count():
    model = nn.Linear(2, 2)

    def epochs() -> Iterator[int]:
        for value in (1, 2, 6):
            nn.init.constant_(model.weight, value)
            yield value

    assert list(average(model, epochs(), Checkpointer())) == [1, 2, 6]
    assert torch.equal(model.weight, torch.full((2, 2), 3.0))


def test_a_run_without_epochs_does_not_change_the_model():
    model = new(BNNET)
    before = state(model)
    assert list(average(model, [], Checkpointer())) == []
    assert not different(before, model.state_dict())


@pytest.mark.parametrize(("first", "last"), [(LR, SWA_LR), (SWA_LR, LR)])
@pytest.mark.parametrize("anneal_epochs", [0, 1, 3])
def test_the_rate_anneals_from_the_optimizers_to_the_averaging_one_and_stays_there(first, last, anneal_epochs):
    optimizer = make_optimizer(nn.Linear(1, 1), train_params(), first)
    schedule = make_swa_schedule(swa_params(lr=last, anneal_epochs=anneal_epochs), optimizer, STEPS)
    rates = []
    for _ in range(5 * STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    steps = anneal_epochs * STEPS
    annealed = [last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    assert rates == pytest.approx(annealed + [last] * (5 * STEPS - steps), rel=1e-9)


def test_the_epochs_go_on_after_the_start_up_to_the_budget_of_the_original():
    assert list(remaining_epochs(swa_params(start=5), total=8, snapshots=0)) == [6, 7, 8]
    assert list(remaining_epochs(swa_params(start=7), total=8, snapshots=0)) == [8]


def test_without_a_start_no_epochs_remain():
    assert list(remaining_epochs(swa_params(start=None), total=8, snapshots=0)) == []
    assert list(remaining_epochs(swa_params(start=5), total=0, snapshots=2)) == []


@pytest.mark.parametrize(
    ("epochs", "total", "said"),
    [
        (0, 0, "Skipped, because train.epochs is 0: the weights are those of the original"),
        (0, 3, "Skipped, because swa.start is null: the weights are those of the original"),
        (1, 3, "mean of 1 epoch"),
        (2, 3, "mean of 2 epochs"),
    ],
)
def test_what_was_averaged_is_told(epochs, total, said):
    history = History()
    history.rows = [None] * epochs
    params = train_params(epochs=total, weights="some.pth")
    assert SwaResult(ModelFile(new(BNNET), BNNET, {}), history).describe(params) == said


@pytest.mark.parametrize("start", [8, 9])
def test_a_start_that_leaves_no_epoch_is_refused(start):
    with pytest.raises(InputError, match=f"swa.start = {start}: must be less than train.epochs = 8"):
        remaining_epochs(swa_params(start=start), total=8, snapshots=0)


def test_averaging_cannot_start_where_no_snapshot_is_kept():
    assert list(remaining_epochs(swa_params(start=6), total=8, snapshots=3)) == [7, 8]
    with pytest.raises(InputError, match=r"swa.start = 5: must be one of the last train.snapshots = 3 epochs"):
        remaining_epochs(swa_params(start=5), total=8, snapshots=3)


@pytest.mark.parametrize("lr", ["x", [1], None, -5, 0, 11, True])
def test_an_impossible_learning_rate_in_the_notes_of_a_snapshot_is_refused(lr):
    with pytest.raises(InputError, match="notes the learning rate"):
        initial_lr({"lr": lr}, 0.1)


def test_the_initial_rate_is_that_of_the_snapshot_and_that_of_swa_without_one():
    assert initial_lr({"lr": 0.02}, 0.1) == 0.02
    assert initial_lr({}, 0.1) == 0.1
