"""Training is reproducible to the bit, follows its schedule in every step, and stops when the loss diverges."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightweight.checkpointing.session import Session
from lightweight.core.errors import InputError
from lightweight.data.dataset import steps_per_epoch
from lightweight.networks.validation import validate
from lightweight.training import loop
from tests.examples import BNNET, augment_params, different, new, state, train, train_params, trained, training_settings

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
    """Keep the first training images of a data set."""
    return replace(dataset, train=dataset.train.take(torch.arange(number)))


def cosine(step: int, steps: int) -> float:
    return LR * (1 + math.cos(math.pi * step / steps)) / 2


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


@pytest.mark.parametrize("inputs", ["batches", "dropped"])
def test_an_epoch_sees_the_same_batches_and_dropout_whichever_epoch_a_run_starts_at(tiny_dataset, inputs):
    whole, late, other = Recorder(), Recorder(), Recorder()
    augment = augment_params(shift=0.1, rotate=10.0)
    train(whole, tiny_dataset, range(1, 4), seed=1, augment=augment)
    torch.rand(7)  # whatever happened to the global generator before
    train(late, tiny_dataset, range(3, 4), seed=1, augment=augment)
    train(other, tiny_dataset, range(3, 4), seed=2, augment=augment)
    first, _, last = torch.cat(getattr(whole, inputs)).split(300)
    assert torch.equal(last, torch.cat(getattr(late, inputs)))
    assert not torch.equal(last, first)
    assert not torch.equal(last, torch.cat(getattr(other, inputs)))


def test_an_epoch_sees_every_training_image_once_in_random_order(tiny_dataset):
    model = Recorder()
    train(model, tiny_dataset, range(1, 2))
    seen, stored = torch.cat(model.batches), tiny_dataset.normalize(tiny_dataset.train.images).flatten(1)
    assert not torch.equal(seen, stored)
    for actual, expected in zip(
        torch.unique(seen, dim=0, return_counts=True), torch.unique(stored, dim=0, return_counts=True), strict=True
    ):
        assert torch.equal(actual, expected)


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
    assert steps_per_epoch(dataset.train, 3) == len(sizes)


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


def test_a_network_that_gives_a_tuple_in_training_mode_is_refused(tiny_dataset):
    class Auxiliary(nn.Linear):
        def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            logits = super().forward(images.flatten(1))
            return (logits, logits) if self.training else logits

    with pytest.raises(InputError, match="The network gives tuple in training mode, not one tensor of logits"):
        train(Auxiliary(784, 10), tiny_dataset)


def test_a_training_split_of_one_image_is_refused(tiny_dataset):
    with pytest.raises(InputError, match="The training split holds a single image"):
        train(new("convnet"), first_images(tiny_dataset, 1))


class Counting(nn.Sequential):
    """A network that counts its training batches in an integer buffer."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.register_buffer("batches", torch.zeros(1, dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        self.batches += self.training
        return super().forward(images)


@pytest.mark.parametrize("decay", [0.1, 0.3])
def test_the_average_moves_with_every_step_by_a_share_that_falls_to_the_decay(tiny_dataset, decay):
    dataset = first_images(tiny_dataset, 96)
    plain, averaged, states = Counting(new(BNNET)), Counting(new(BNNET)), []
    hook = plain.register_forward_pre_hook(lambda module, _: states.append(state(plain)) if module.training else None)
    train(plain, dataset, range(1, 3), batch_size=32)
    hook.remove()
    steps = [*states[1:], state(plain)]
    assert len(steps) == 6
    expected = steps[0]
    for number, step in enumerate(steps[1:], start=1):
        kept = min(decay, (1 + number) / (10 + number))  # 2/11, 3/12, 4/13, ...
        for name, tensor in step.items():
            is_integer = not tensor.is_floating_point()
            expected[name] = tensor if is_integer else kept * expected[name] + (1 - kept) * tensor
    rows = train(averaged, dataset, range(1, 3), batch_size=32, ema=decay)
    for name, tensor in averaged.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)
    assert averaged.batches == 6
    assert {name for name, _ in averaged.named_parameters()} <= different(steps[-1], state(averaged))
    assert rows[-1].val_loss == pytest.approx(validate(averaged, dataset, dataset.val)[0])


def test_a_short_run_is_not_held_back_by_a_slow_average(tiny_dataset):
    rows = [train(new("convnet"), tiny_dataset, range(1, 6), ema=decay)[-1] for decay in (0.0, 0.999)]
    assert rows[1].val_accuracy > rows[0].val_accuracy - 0.1


def test_the_average_is_in_the_model_at_every_row_and_does_not_disturb_training(tiny_dataset):
    plain = train(new(BNNET), tiny_dataset)
    model, losses = new(BNNET), []
    params = train_params(ema=0.9)
    for row in loop.train(model, Session(tiny_dataset, 0), training_settings(params, 3), range(1, 4)):
        losses.append(row.train_loss)
        assert row.val_loss == pytest.approx(validate(model, tiny_dataset, tiny_dataset.val)[0])
    assert losses == [row.train_loss for row in plain]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_teacher_pulls_the_predictions_of_its_student_towards_its_own(tiny_dataset, smoothing):
    teacher = trained(BNNET, tiny_dataset)
    images = tiny_dataset.normalize(tiny_dataset.val.images)

    def distance(weight: float) -> float:
        student = new("convnet", seed=1)
        changes = {"teacher_weight": weight, "temperature": 2.0, "label_smoothing": smoothing}
        train(student, tiny_dataset, range(1, 6), teacher=teacher, **changes)
        with torch.no_grad():
            student, target = (model.eval()(images).log_softmax(1) for model in (student, teacher))
        return F.kl_div(student, target, reduction="batchmean", log_target=True).item()

    assert distance(1.0) < 0.8 * distance(0.0)


def test_a_teacher_of_no_weight_changes_nothing(tiny_dataset):
    alone, taught = new(BNNET), new(BNNET)
    train(alone, tiny_dataset)
    train(taught, tiny_dataset, teacher=trained("convnet", tiny_dataset), teacher_weight=0.0)
    assert not different(state(alone), state(taught))


def test_a_frozen_part_stays_bitwise_as_it_is_with_its_statistics_while_the_rest_learns(tiny_dataset):
    model = new(BNNET)
    before = state(model)
    train(model, tiny_dataset, freeze=["0", "1"])
    kept = {name for name in before if name.startswith(("0.", "1."))}
    assert different(before, state(model)) == before.keys() - kept
    assert {"1.running_mean", "1.num_batches_tracked", "0.weight"} <= kept


def test_batches_are_enlarged_to_the_input_size(tiny_dataset):
    class Sized(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            sizes.add(tuple(images.shape[1:]))
            return super().forward(images).mean((2, 3))

    sizes: set[tuple[int, ...]] = set()
    train(Sized(1, 10, 3), replace(tiny_dataset, input_size=40), range(1, 2))
    assert sizes == {(1, 40, 40)}


def test_parameters_of_features_that_are_off_change_no_byte(tiny_dataset):
    plain, other = new(BNNET), new(BNNET)
    train(plain, tiny_dataset)
    unused = {"momentum": 0.1, "step_epochs": 7, "step_factor": 0.9, "temperature": 9.0, "teacher_weight": 1.0}
    train(other, tiny_dataset, **unused)
    assert not different(state(plain), state(other))
