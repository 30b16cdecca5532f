"""Training is reproducible to the bit, follows its schedule to the step, and ends where it must."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightweight.errors import InputError
from lightweight.training import (
    COLUMNS,
    Epoch,
    choose,
    make_optimizer,
    make_schedule,
    steps_per_epoch,
    stop_early,
    validate,
)
from tests.examples import BNNET, augment_params, different, new, train, train_params

LR = 0.004


class Recorder(nn.Module):
    """A linear classifier behind dropout that keeps every batch it is trained on, before and after dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.linear = nn.Dropout(0.5), nn.Linear(784, 10)
        self.batches: list[Tensor] = []
        self.dropped: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        dropped = self.dropout(images.flatten(1))
        if self.training:
            self.batches.append(images.flatten(1))
            self.dropped.append(dropped)
        return self.linear(dropped)


class Diverging(nn.Module):
    """A classifier whose training loss becomes `value` after so many healthy steps."""

    def __init__(self, value: float, healthy_steps: int) -> None:
        super().__init__()
        self.linear, self.value, self.healthy_steps = nn.Linear(784, 10), value, healthy_steps

    def forward(self, images: Tensor) -> Tensor:
        logits = self.linear(images.flatten(1))
        if self.training:
            self.healthy_steps -= 1
            if self.healthy_steps < 0:
                return logits.masked_fill(torch.arange(10) > 0, -self.value)
        return logits


def first_images(dataset, number):
    return replace(dataset, train=dataset.train.take(torch.arange(number)))


def rates(name: str, steps: int) -> list[float]:
    """The learning rate of each of `steps` steps, and the one after them."""
    optimizer = make_optimizer(nn.Linear(1, 1), train_params(), LR)
    schedule, found = make_schedule(optimizer, name, steps), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def cosine(step: int, steps: int) -> float:
    return LR * (1 + math.cos(math.pi * step / steps)) / 2


def rows(*accuracies: float) -> list[Epoch]:
    return [Epoch(number, LR, 1.0, 1.0, accuracy) for number, accuracy in enumerate(accuracies, 1)]


def test_a_constant_schedule_never_changes_the_rate():
    assert rates("constant", 20) == [LR] * 21


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_a_cosine_schedule_falls_from_the_rate_to_zero_in_exactly_its_steps(steps):
    assert rates("cosine", steps) == pytest.approx([cosine(step, steps) for step in range(steps + 1)], abs=1e-12)


def test_a_onecycle_schedule_peaks_at_the_rate_after_three_tenths_of_its_steps_and_ends_near_zero():
    found = rates("onecycle", 20)[:-1]
    peak = found.index(max(found))
    assert found[peak] == pytest.approx(LR, rel=1e-12)
    assert peak == 5
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)
    assert found[0] == pytest.approx(LR / 25)
    assert 0 < found[-1] < LR / 10_000


@pytest.mark.parametrize("steps", range(1, 14))
def test_a_onecycle_schedule_never_exceeds_the_rate(steps):
    found = rates("onecycle", steps)[:-1]
    assert max(found) <= LR * (1 + 1e-12)
    assert min(found) > 0


def test_a_cosine_schedule_of_no_steps_can_be_made():
    assert rates("cosine", 0) == [LR]


def test_a_row_holds_the_rate_of_the_last_step_of_its_epoch(tiny_dataset):
    history = train(Recorder(), first_images(tiny_dataset, 64), lr=LR, schedule="cosine", batch_size=16)
    assert [row.lr for row in history] == pytest.approx([cosine(4 * epoch - 1, 12) for epoch in (1, 2, 3)])
    assert [row.epoch for row in history] == [1, 2, 3]


def test_equal_seeds_give_bitwise_equal_weights_and_other_seeds_others(tiny_dataset):
    def weights(seed: int) -> dict[str, Tensor]:
        model = new(BNNET)
        train(model, tiny_dataset, range(1, 3), seed, augment=augment_params(shift=0.1, flip=True))
        return model.state_dict()

    first = weights(1)
    assert not different(first, weights(1))
    trained = {name for name, _ in new(BNNET).named_parameters()}
    assert trained <= different(first, weights(2))


@pytest.mark.parametrize("given", ["batches", "dropped"])
def test_an_epoch_sees_the_same_batches_and_dropout_whichever_epoch_a_run_starts_at(tiny_dataset, given):
    whole, late, other = Recorder(), Recorder(), Recorder()
    augment = augment_params(shift=0.1, rotate=10.0)
    train(whole, tiny_dataset, range(1, 4), seed=1, augment=augment)
    torch.rand(7)  # whatever happened to the global generator before
    train(late, tiny_dataset, range(3, 4), seed=1, augment=augment)
    train(other, tiny_dataset, range(3, 4), seed=2, augment=augment)
    first, _, last = torch.cat(getattr(whole, given)).split(300)
    assert torch.equal(last, torch.cat(getattr(late, given)))
    assert not torch.equal(last, first)
    assert not torch.equal(last, torch.cat(getattr(other, given)))


def test_an_epoch_sees_every_training_image_once_in_random_order(tiny_dataset):
    model = Recorder()
    train(model, tiny_dataset, range(1, 2))
    seen, stored = torch.cat(model.batches), tiny_dataset.normalize(tiny_dataset.train.images).flatten(1)
    assert not torch.equal(seen, stored)
    for found, expected in zip(
        torch.unique(seen, dim=0, return_counts=True), torch.unique(stored, dim=0, return_counts=True), strict=True
    ):
        assert torch.equal(found, expected)


def test_every_image_is_augmented_afresh_in_every_batch_epoch_and_run(tiny_dataset):
    dataset = replace(tiny_dataset, train=tiny_dataset.train.take(torch.zeros(8, dtype=torch.int64)))
    model = Recorder()
    for seed in (1, 2):
        train(model, dataset, range(1, 3), seed, batch_size=4, augment=augment_params(shift=0.1))
    assert len(torch.unique(torch.cat(model.batches), dim=0)) == 2 * 2 * 8


@pytest.mark.parametrize(
    ("images", "sizes"), [(2, [2]), (3, [3]), (4, [3]), (5, [3, 2]), (6, [3, 3]), (7, [3, 3]), (8, [3, 3, 2])]
)
def test_only_a_last_batch_of_a_single_image_is_left_out(tiny_dataset, images, sizes):
    dataset, model = first_images(tiny_dataset, images), Recorder()
    train(model, dataset, range(1, 2), batch_size=3)
    assert [len(batch) for batch in model.batches] == sizes
    assert steps_per_epoch(dataset, train_params(batch_size=3)) == len(sizes)


def test_training_lowers_the_loss_on_real_digits(tiny_dataset):
    history = train(new("convnet"), tiny_dataset, range(1, 6))
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert history[-1].val_loss < history[0].val_loss
    assert history[-1].val_accuracy > 0.7


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_training_loss_is_the_mean_cross_entropy_with_smoothed_labels(tiny_dataset, smoothing):
    dataset, model = first_images(tiny_dataset, 64), new("convnet")
    with torch.no_grad():
        logs = model(dataset.normalize(dataset.train.images)).double().log_softmax(1)
    targets = (1 - smoothing) * F.one_hot(dataset.train.labels, 10) + smoothing / 10
    (row,) = train(model, dataset, range(1, 2), batch_size=16, lr=1e-12, label_smoothing=smoothing)
    assert row.train_loss == pytest.approx(-(targets * logs).sum(1).mean().item(), rel=1e-5)


def test_weight_decay_shrinks_weights_by_rate_times_decay_where_the_gradient_is_zero():
    model = nn.Linear(5, 5)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, train_params(weight_decay=0.1), lr=0.01)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before * (1 - 0.01 * 0.1))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_loss_that_is_no_longer_finite_ends_the_run_with_the_epoch_and_the_rate(tiny_dataset, value, epoch):
    model = Diverging(value, healthy_steps=5 * epoch - 1)
    with pytest.raises(InputError, match=rf"loss became {value} in epoch {epoch} at a learning rate of {LR}:"):
        train(model, tiny_dataset, lr=LR)


@pytest.mark.parametrize("batch_size", [7, 60, 512])
def test_validation_is_the_mean_cross_entropy_and_accuracy_in_evaluation_mode(tiny_dataset, batch_size):
    model, split = Recorder().train(), tiny_dataset.val
    weight, bias = (value.detach().double() for value in (model.linear.weight, model.linear.bias))
    pixels = (split.images.double() / 255 - tiny_dataset.mean.double()) / tiny_dataset.std.double()
    logits = pixels.flatten(1) @ weight.T + bias
    loss = -logits.log_softmax(1)[torch.arange(60), split.labels].mean().item()
    accuracy = (logits.argmax(1) == split.labels).double().mean().item()
    assert validate(model, tiny_dataset, split, batch_size) == pytest.approx((loss, accuracy), rel=1e-5)


@pytest.mark.parametrize(
    ("patience", "accuracies", "last"),
    [
        (1, (0.5, 0.6, 0.6, 0.7), 3),
        (2, (0.5, 0.6, 0.5, 0.7, 0.7, 0.6, 0.8), 6),
        (3, (0.5, 0.4, 0.3, 0.2, 0.9), 4),
    ],
)
def test_training_stops_after_exactly_patience_epochs_without_a_better_accuracy(patience, accuracies, last):
    run = iter(rows(*accuracies))
    assert [row.epoch for row in stop_early(run, patience)] == list(range(1, last + 1))
    assert next(run).epoch == last + 1


def test_patience_zero_never_stops_and_keeps_the_last_epoch():
    history = rows(0.9, 0.5, 0.4, 0.3, 0.2)
    assert list(stop_early(history, patience=0)) == history
    assert choose(history, patience=0) == history[-1]


def test_early_stopping_keeps_the_first_of_the_most_accurate_epochs():
    assert choose(rows(0.5, 0.7, 0.6, 0.7, 0.1), patience=3).epoch == 2


def test_the_line_of_an_epoch_shows_every_column():
    line = Epoch(3, 0.004, 1.25, 1.5, 0.875).line(last=10)
    assert line == "epoch  3/10  lr 4.00e-03  loss 1.2500  val loss 1.5000  val accuracy 87.50%"
    assert COLUMNS == ["epoch", "lr", "train_loss", "val_loss", "val_accuracy"]
