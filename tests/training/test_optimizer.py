"""Optimizers follow their published rules, schedules are exact in every step, gradients are clipped to their norm."""

import math

import pytest
import torch
from torch import Tensor, nn, optim

from lightweight.core.errors import InputError
from lightweight.training.freezing import freeze
from lightweight.training.optimizer import Stepper, make_optimizer, make_schedule
from tests.examples import BNNET, different, new, state, train, train_params

LR = 0.004
CPU = torch.device("cpu")


def rates(name: str, steps: int, epochs: int = 1, **changes) -> list[float]:
    """List the learning rate of each of `steps` steps of all epochs, and the one after them."""
    optimizer = make_optimizer(nn.Linear(1, 1), train_params(), LR)
    schedule, lrs = make_schedule(name, train_params(**changes), epochs, optimizer, steps), []
    for _ in range(epochs * steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*lrs, optimizer.param_groups[0]["lr"]]


def cosine(step: int, steps: int) -> float:
    return LR * (1 + math.cos(math.pi * step / steps)) / 2


def test_a_constant_schedule_never_changes_the_rate():
    assert rates("constant", 20) == [LR] * 21


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_a_cosine_schedule_falls_from_the_rate_to_zero_in_exactly_its_steps(steps):
    assert rates("cosine", steps) == pytest.approx([cosine(step, steps) for step in range(steps + 1)], abs=1e-12)


def test_a_onecycle_schedule_peaks_at_the_rate_after_three_tenths_of_its_steps_and_ends_near_zero():
    lrs = rates("onecycle", 20)[:-1]
    peak = lrs.index(max(lrs))
    assert lrs[peak] == pytest.approx(LR, rel=1e-12)
    assert peak == 5
    assert lrs[: peak + 1] == sorted(lrs[: peak + 1])
    assert lrs[peak:] == sorted(lrs[peak:], reverse=True)
    assert lrs[0] == pytest.approx(LR / 25)
    assert 0 < lrs[-1] < LR / 10_000


@pytest.mark.parametrize("steps", range(1, 14))
def test_a_onecycle_schedule_never_exceeds_the_rate(steps):
    lrs = rates("onecycle", steps)[:-1]
    assert max(lrs) <= LR * (1 + 1e-12)
    assert min(lrs) > 0


def test_a_cosine_schedule_of_no_steps_can_be_made():
    assert rates("cosine", 0) == [LR]


def test_a_step_schedule_multiplies_the_rate_by_its_factor_every_so_many_epochs():
    lrs = rates("step", steps=3, epochs=5, step_epochs=2, step_factor=0.1)[:-1]
    assert lrs == pytest.approx([LR] * 6 + [0.1 * LR] * 6 + [0.01 * LR] * 3)


def test_weight_decay_shrinks_weights_by_rate_times_decay_where_the_gradient_is_zero():
    model = nn.Linear(5, 5)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, train_params(weight_decay=0.1), lr=0.01)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before * (1 - 0.01 * 0.1))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weight_decay_is_part_of_the_gradient_in_the_others(name):
    model = nn.Linear(3, 3)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, train_params(optimizer=name, weight_decay=0.1), lr=0.01)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    step = 0.1 * before if name == "sgd" else before.sign()  # Adam's first step is as long for every gradient
    torch.testing.assert_close(model.weight.detach(), before - 0.01 * step, rtol=1e-4, atol=1e-6)


def test_sgd_has_the_momentum_of_its_parameter():
    weight = nn.Parameter(torch.zeros(1, 1))
    model = nn.Module()
    model.weight = weight
    optimizer = make_optimizer(model, train_params(optimizer="sgd", momentum=0.5, weight_decay=0.0), lr=0.1)
    for expected in (-0.1, -0.25, -0.425):  # steps of 1, 1.5, 1.75 gradients
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        assert weight.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_decay_can_spare_biases_and_normalisation(name):
    model = new(BNNET)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
        parameter.grad = torch.zeros_like(parameter)
    before = state(model)
    make_optimizer(model, train_params(optimizer=name, decay_all=False, weight_decay=0.1), lr=0.01).step()
    changed = different(before, state(model))
    assert changed == {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
    make_optimizer(model, train_params(optimizer=name, decay_all=True, weight_decay=0.1), lr=0.01).step()
    assert different(before, state(model)) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("decay_all", [True, False])
def test_an_optimizer_trains_every_parameter_that_is_not_frozen_once(decay_all):
    model = new(BNNET)
    freeze(model, ["0", "4"])
    groups = make_optimizer(model, train_params(decay_all=decay_all), LR).param_groups
    trained = sorted(id(parameter) for group in groups for parameter in group["params"])
    expected = [parameter for name, parameter in model.named_parameters() if not name.startswith(("0.", "4."))]
    assert trained == sorted(map(id, expected))


def gradient_after_step(clip_norm: float, scale: float) -> Tensor:
    """Return the gradient that SGD uses for the loss `scale * (3 a + 4 b)`: at a rate of 1 it equals the step."""
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    stepper = Stepper(optimizer, train_params(clip_norm=clip_norm), CPU)
    stepper.backward(scale * model(torch.tensor([[3.0, 4.0]])).sum())
    stepper.step()
    return -model.weight.detach()[0]


def test_a_gradient_is_clipped_to_its_norm_and_keeps_its_direction():
    assert gradient_after_step(0.0, scale=2).tolist() == pytest.approx([6, 8])
    assert gradient_after_step(5.0, scale=2).tolist() == pytest.approx([3, 4], rel=1e-4)
    assert gradient_after_step(5.0, scale=0.5).tolist() == pytest.approx([1.5, 2]), "shorter ones are left alone"


def test_a_step_does_not_add_the_gradient_of_the_step_before():
    model = nn.Linear(1, 1, bias=False)
    stepper = Stepper(optim.SGD(model.parameters(), lr=0.0), train_params(), CPU)
    for _ in range(3):
        stepper.backward(model(torch.ones(1, 1)).sum())
        assert model.weight.grad.item() == 1
        stepper.step()


def test_bf16_runs_the_forward_pass_in_16_bits_and_keeps_weights_in_32(tiny_dataset):
    stepper = Stepper(make_optimizer(new("convnet"), train_params(), LR), train_params(precision="bf16"), CPU)
    with stepper.autocast():
        assert new("convnet")(torch.zeros(1, 1, 28, 28)).dtype == torch.bfloat16
    model = new("convnet")
    rows = train(model, tiny_dataset, range(1, 6), precision="bf16")
    assert rows[-1].train_loss < 0.5 * rows[0].train_loss
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    full, half = state(model), new("convnet")
    train(half, tiny_dataset, range(1, 6))
    assert different(full, state(half)), "16 bits round otherwise"


def test_fp16_needs_a_gpu():
    with pytest.raises(InputError, match=r"train.precision = 'fp16': needs a CUDA GPU"):
        Stepper(make_optimizer(new("convnet"), train_params(), LR), train_params(precision="fp16"), CPU)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_an_overflow_of_fp16_is_a_step_left_out_and_scaling_changes_no_gradient(name):
    model = nn.Linear(1, 1, bias=False)
    before = model.weight.item()
    optimizer = make_optimizer(model, train_params(optimizer=name, precision="fp16", weight_decay=0.0), lr=0.1)
    stepper = Stepper(optimizer, train_params(clip_norm=5.0), CPU)
    stepper.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    torch.use_deterministic_algorithms(True)  # under which fresh memory is filled with NaN
    stepper.backward(model(torch.full((1, 1), math.inf)).sum())
    stepper.step()
    torch.use_deterministic_algorithms(False)
    assert model.weight.item() == before
    stepper.backward(2 * model(torch.ones(1, 1)).sum())
    stepper.step()
    assert model.weight.item() == pytest.approx(before - (0.2 if name == "sgd" else 0.1), rel=1e-4)


def test_an_operation_without_a_deterministic_form_is_refused_in_one_line():
    class Random(torch.autograd.Function):
        @staticmethod
        def forward(context, value: Tensor) -> Tensor:
            return value.clone()

        @staticmethod
        def backward(context, gradient: Tensor) -> Tensor:
            raise RuntimeError("pooling does not have a deterministic implementation, but you set\nmore")

    model = nn.Linear(1, 1)
    stepper = Stepper(make_optimizer(model, train_params(), LR), train_params(), CPU)
    with pytest.raises(InputError) as error:
        stepper.backward(Random.apply(model(torch.ones(1, 1))).sum())
    assert str(error.value).startswith("The network cannot be trained reproducibly here: pooling does not have")
    assert "\n" not in str(error.value)
