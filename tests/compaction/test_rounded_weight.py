"""Training with rounded weights: gradients pass, bits cost, and what is left at the end are integers times a gain."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from lightweight.compaction.rounded_weight import LARGEST, RoundedNetwork, RoundedWeight, list_weights


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    for layer in (model[0], model[4]):
        nn.init.normal_(layer.weight)
    return model


def rounded(rate: float = 1e-5, step: float = 1.0) -> RoundedNetwork:
    return RoundedNetwork(network(), step, rate)


def test_a_weight_is_gain_times_step_times_an_integer():
    model = rounded()
    for name, rounding, weight in model.parts():
        module, _, key = name.rpartition(".")
        with torch.no_grad():
            rounding.gain.fill_(3.0)
        value = getattr(model.network.get_submodule(module), key)
        whole = value / (3 * rounding.step)
        assert torch.allclose(whole, whole.round(), atol=1e-5)
        assert torch.equal(whole.round(), rounding.integers(weight))
        assert rounding.integers(weight).abs().max() > 1


def test_the_gradient_of_the_rounded_weight_reaches_the_weight_unchanged():
    rounding = RoundedWeight(torch.randn(4, 3), 1.0)
    weight = torch.randn(4, 3, requires_grad=True)
    (rounding(weight) * torch.arange(12.0).view(4, 3)).sum().backward()
    assert torch.equal(weight.grad, torch.arange(12.0).view(4, 3))


def test_the_gradient_of_a_bit_is_the_difference_of_costs_of_the_integers_on_both_sides():
    rounding = RoundedWeight(torch.randn(100, 20), 1.0)
    weight = nn.Parameter(torch.randn(100, 20) * 2)
    rounding.add_gradient(weight, rate=0.5)
    costs, position = rounding.costs(), weight.detach() / rounding.step
    below = position.floor().long() + LARGEST
    assert torch.allclose(weight.grad, 0.5 * (costs[below + 1] - costs[below]) / rounding.step)


def test_the_gradient_is_added_to_the_one_that_is_there():
    rounding, weight = RoundedWeight(torch.randn(50, 30), 1.0), nn.Parameter(torch.randn(50, 30))
    rounding.add_gradient(weight, rate=1.0)
    alone = weight.grad.clone()
    weight.grad = torch.ones_like(weight)
    rounding.counts.zero_()
    rounding.add_gradient(weight, rate=1.0)
    assert torch.allclose(weight.grad, 1 + alone)


def test_costs_are_the_entropy_of_the_counts():
    rounding, weight = RoundedWeight(torch.randn(200, 50), 1.0), nn.Parameter(torch.randn(200, 50))
    rounding.add_gradient(weight, rate=1.0)
    counts = rounding.integers(weight).unique(return_counts=True)[1].double()
    entropy = -(counts * (counts / counts.sum()).log2()).sum()
    assert rounding.bits(weight) == pytest.approx(float(entropy), rel=0.02)


def test_steps_of_the_penalty_alone_make_fewer_bits_and_more_zeros():
    model = rounded(rate=1e-2)
    model.raise_rate(1.0, 0.3)
    optimizer = torch.optim.SGD(model.network.parameters(), lr=3.0)
    model.add_penalty()
    before, zeros = model.bits(), count_zeros(model)
    for _ in range(100):
        optimizer.zero_grad()
        model.add_penalty()
        optimizer.step()
    assert model.bits() < 0.7 * before
    assert count_zeros(model) > 1.5 * zeros


def count_zeros(model: RoundedNetwork) -> int:
    return sum(int((rounding.integers(weight) == 0).sum()) for _, rounding, weight in model.parts())


def test_the_rate_rises_and_then_stays():
    model = rounded(rate=1.0)
    shares = []
    for done in (0.0, 0.15, 0.3, 1.0):
        model.raise_rate(done, 0.3)
        shares.append(float(model.rate_share))
    assert shares == pytest.approx([0, 0.5, 1, 1])


def test_at_the_start_nothing_is_penalised():
    model = rounded(rate=1.0)
    model.add_penalty()
    assert all(not weight.grad.any() for _, _, weight in model.parts())


def test_the_end_leaves_the_rounded_weights_and_gives_their_integers():
    model = rounded()
    images = torch.randn(2, 1, 8, 8)
    before, steps = model.network.eval()(images), {name: rounding.step for name, rounding, _ in model.parts()}
    integers = model.finish()
    assert torch.equal(model.network(images), before)
    assert set(model.network.state_dict()) == set(network().state_dict())
    for name, values in integers.items():
        assert torch.allclose(model.network.state_dict()[name], values * steps[name])


def test_small_layers_have_finer_steps():
    few, many = torch.randn(10, 10), torch.randn(100, 100)
    assert RoundedWeight(few, 1.25).step / few.std() < 0.6 < 1.2 < RoundedWeight(many, 1.25).step / many.std()


def test_a_copy_of_the_state_goes_on_alike():
    one, other = rounded(rate=1e-2), rounded(rate=1e-2)
    one.raise_rate(0.2, 0.3)
    one.add_penalty()
    other.network.load_state_dict(deepcopy(one.network.state_dict()))
    for model in (one, other):
        model.network.zero_grad()
        model.add_penalty()
    for (_, _, first), (_, _, second) in zip(one.parts(), other.parts(), strict=True):
        assert first.grad.any()
        assert torch.equal(first.grad, second.grad)


def test_convolutions_linear_layers_and_attention_have_weights_and_normalisation_has_none():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(1, 2, 3),
            "norm": nn.BatchNorm2d(2),
            "layer_norm": nn.LayerNorm(4),
            "attention": nn.MultiheadAttention(8, 2),
            "linear": nn.Linear(4, 2),
        }
    )
    assert {name for name, _, _ in list_weights(model)} == {
        "conv.weight", "attention.in_proj_weight", "attention.out_proj.weight", "linear.weight",
    }  # fmt: skip
