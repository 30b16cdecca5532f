"""The smallest weights, and exactly as many as asked, become zero and stay zero; every other bit stays."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from lightweight.errors import InputError
from lightweight.pruning import layers, prune, sparsity
from tests.examples import BNNET, different, new, prune_params, state, train

AMOUNTS = [0.1, 0.5, 0.93]
SCOPES = ["layer", "global"]


def one_shot(model: nn.Module, **changes) -> None:
    prune(model, prune_params(**changes), recover=lambda model: None)


def chosen(model: nn.Module, kind: str = "both") -> dict[str, Tensor]:
    return {f"{name}.weight": module.weight.detach() for name, module in layers(model, kind)}


def flat(model: nn.Module) -> Tensor:
    return torch.cat([weight.flatten() for weight in chosen(model).values()])


def attention(channels: int, image_size: int, num_classes: int) -> nn.Module:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(channels * image_size, 16), nn.Linear(16, num_classes)
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            rows = self.embed(images.transpose(1, 2).flatten(2))
            return self.head(self.attention(rows, rows, rows, need_weights=False)[0].mean(1))

    return Attention()


@pytest.mark.parametrize("amount", AMOUNTS)
def test_the_share_of_zeros_is_exact_in_every_layer(amount):
    model = new(BNNET)
    one_shot(model, amount=amount)
    for weight in chosen(model).values():
        assert (weight == 0).sum() == round(amount * weight.numel())


@pytest.mark.parametrize("amount", AMOUNTS)
def test_the_global_share_of_zeros_is_exact_and_differs_between_layers(amount):
    model = new(BNNET)
    one_shot(model, amount=amount, scope="global")
    weights = flat(model)
    assert (weights == 0).sum() == round(amount * len(weights))
    assert len({round(row["sparsity"], 2) for row in sparsity(model)}) > 1


@pytest.mark.parametrize("amount", AMOUNTS)
def test_no_pruned_weight_of_a_layer_was_larger_than_a_kept_one(amount):
    model = new(BNNET)
    before = deepcopy(chosen(model))
    one_shot(model, amount=amount)
    for name, weight in chosen(model).items():
        magnitude = before[name].abs()
        assert magnitude[weight == 0].max() <= magnitude[weight != 0].min()


@pytest.mark.parametrize("amount", AMOUNTS)
def test_no_globally_pruned_weight_was_larger_than_a_kept_one_of_any_layer(amount):
    model = new(BNNET)
    magnitude = flat(model).abs()
    one_shot(model, amount=amount, scope="global")
    pruned = flat(model) == 0
    assert magnitude[pruned].max() <= magnitude[~pruned].min()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ["conv", "linear", "both"])
def test_kept_weights_and_everything_else_are_bitwise_unchanged_without_recovery(kind, scope):
    model = new(BNNET)
    before = state(model)
    one_shot(model, layers=kind, scope=scope)
    after = model.state_dict()
    assert different(before, after) == set(chosen(model, kind))
    for name, weight in chosen(model, kind).items():
        assert torch.equal(weight, before[name] * (weight != 0))


@pytest.mark.parametrize("scope", SCOPES)
def test_pruned_weights_are_zeros_of_one_bit_pattern(scope):
    model = new(BNNET)
    one_shot(model, scope=scope)
    weights = flat(model)
    assert not torch.signbit(weights[weights == 0]).any()


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "sgd"}, {"optimizer": "adam", "ema": 0.9, "clip_norm": 1.0}, {"precision": "bf16"}]
)
def test_zeros_survive_recovery_with_weight_decay_and_every_other_weight_moves(tiny_dataset, changes):
    model = new(BNNET)
    one_shot(deepcopy(model))
    reference, how = deepcopy(model), {"weight_decay": 0.1} | changes
    one_shot(reference)
    prune(model, prune_params(), recover=lambda model: train(model, tiny_dataset, range(1, 3), **how))
    for name, weight in chosen(model).items():
        pruned = chosen(reference)[name] == 0
        assert torch.equal(weight == 0, pruned)
        assert (weight != chosen(reference)[name])[~pruned].all()


@pytest.mark.parametrize("scope", SCOPES)
def test_recovery_gets_the_pruned_model_once_in_its_memory_format(scope):
    model, seen = new(BNNET), []
    strides = [weight.stride() for weight in chosen(model).values()]
    prune(model, prune_params(scope=scope), recover=lambda model: seen.append((model, sparsity(model))))
    assert seen == [(model, sparsity(model))]
    assert [weight.stride() for weight in chosen(model).values()] == strides


def test_nothing_that_held_the_zeros_is_left_behind():
    model = new(BNNET)
    names = [name for name, _ in model.named_parameters()]
    one_shot(model)
    assert [name for name, _ in model.named_parameters()] == names
    model(torch.rand(8, 1, 28, 28)).square().sum().backward()
    for _, module in layers(model, "both"):
        assert module.weight.grad[module.weight == 0].any()


@pytest.mark.parametrize("scope", SCOPES)
def test_an_amount_of_zero_changes_nothing_and_recovers_nothing(scope):
    model = new(BNNET)
    before = state(model)
    prune(model, prune_params(amount=0.0, scope=scope), recover=lambda model: pytest.fail("recovered"))
    assert not different(before, model.state_dict())


@pytest.mark.parametrize(("kind", "other"), [("conv", nn.Linear(784, 10)), ("linear", nn.Conv2d(1, 10, 28))])
def test_a_network_without_a_layer_of_the_kind_is_refused(kind, other):
    with pytest.raises(InputError, match=f"prune.layers = '{kind}'"):
        one_shot(nn.Sequential(other, nn.Flatten()), layers=kind)
    one_shot(nn.Sequential(other, nn.Flatten()), layers=kind, amount=0.0)  # nothing is asked of any layer


@pytest.mark.parametrize("scope", SCOPES)
def test_the_memory_format_does_not_change_which_of_equal_weights_are_pruned(scope):
    found = []
    for memory_format in (torch.channels_last, torch.contiguous_format):
        model = new(BNNET).to(memory_format=memory_format)
        for weight in chosen(model).values():
            weight.copy_(weight.sign())
        one_shot(model, scope=scope)
        found.append(model.state_dict())
    assert not different(*found)


@pytest.mark.parametrize("scope", SCOPES)
def test_pruning_more_of_a_pruned_network_keeps_its_zeros(scope):
    model = new(BNNET)
    one_shot(model, amount=0.4, scope=scope)
    first = flat(model)
    one_shot(model, amount=0.7, scope=scope)
    second = flat(model)
    assert (second[first == 0] == 0).all()
    assert (second == 0).sum() == pytest.approx(0.7 * len(second), abs=3)


def test_layers_of_attention_can_be_pruned_and_recover(tiny_dataset):
    model = attention(1, 28, 10)
    prune(model, prune_params(layers="linear"), recover=lambda model: train(model, tiny_dataset, range(1, 2)))
    zeros = {row["layer"]: row["zeros"] for row in sparsity(model)}
    assert zeros == {"embed": 28 * 16 / 2, "head": 16 * 10 / 2, "attention.out_proj": 16 * 16 / 2}


def test_sparsity_counts_the_zeros_of_every_layer():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(4, 5))
    for module, zeros in ((model[0], 3), (model[3], 15)):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
        module.weight.data.view(-1)[:zeros] = 0
    assert sparsity(model) == [
        {"layer": "0", "weights": 18, "zeros": 3, "sparsity": 3 / 18},
        {"layer": "3", "weights": 20, "zeros": 15, "sparsity": 0.75},
    ]
