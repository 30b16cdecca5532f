"""Schedules set exactly the given share of the weights to zero, the least important ones, and change nothing else."""

from copy import deepcopy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.core.errors import InputError
from lightweight.pruning.amounts import amounts_by_group
from lightweight.pruning.groups import prunable_layers, sparsity_by_layer
from lightweight.pruning.importance import Importance
from lightweight.pruning.schedule import RAMP, UPDATES, PruningState, run_schedule
from lightweight.pruning.unstructured import WeightGroups
from tests.examples import BNNET, different, groups_of, new, noise, prune_in_place, prune_params, state, train

AMOUNTS = [0.1, 0.5, 0.93]
SCOPES = ["layer", "global"]


def prunable_weights(model: nn.Module, types: str = "both") -> dict[str, Tensor]:
    """Return the weights of the prunable layers by their names in the state dict."""
    return {f"{name}.weight": layer.weight.detach() for name, layer in prunable_layers(model, types).items()}


def all_weights(model: nn.Module) -> Tensor:
    """Concatenate the weights of the prunable layers (weights,)."""
    return torch.cat([weight.flatten() for weight in prunable_weights(model).values()])


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
    prune_in_place(model, amount=amount)
    for weight in prunable_weights(model).values():
        assert (weight == 0).sum() == round(amount * weight.numel())


@pytest.mark.parametrize("amount", AMOUNTS)
def test_the_global_share_of_zeros_is_exact_and_differs_between_layers(amount):
    model = new(BNNET)
    prune_in_place(model, amount=amount, scope="global")
    weights = all_weights(model)
    assert (weights == 0).sum() == round(amount * len(weights))
    assert len({round(row["sparsity"], 2) for row in sparsity_by_layer(new(BNNET), model)}) > 1


@pytest.mark.parametrize("amount", AMOUNTS)
def test_no_pruned_weight_of_a_layer_was_larger_than_a_kept_one(amount):
    model = new(BNNET)
    before = deepcopy(prunable_weights(model))
    prune_in_place(model, amount=amount)
    for name, weight in prunable_weights(model).items():
        magnitude = before[name].abs()
        assert magnitude[weight == 0].max() <= magnitude[weight != 0].min()


@pytest.mark.parametrize("amount", AMOUNTS)
def test_no_globally_pruned_weight_was_larger_than_a_kept_one_of_any_layer(amount):
    model = new(BNNET)
    magnitude = all_weights(model).abs()
    prune_in_place(model, amount=amount, scope="global")
    pruned = all_weights(model) == 0
    assert magnitude[pruned].max() <= magnitude[~pruned].min()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("types", ["conv", "linear", "both"])
def test_kept_weights_and_everything_else_are_bitwise_unchanged_without_fine_tuning(types, scope):
    model = new(BNNET)
    before = state(model)
    prune_in_place(model, layers=types, scope=scope)
    after = model.state_dict()
    assert different(before, after) == set(prunable_weights(model, types))
    for name, weight in prunable_weights(model, types).items():
        assert torch.equal(weight, before[name] * (weight != 0))


@pytest.mark.parametrize("scope", SCOPES)
def test_pruned_weights_are_zeros_of_one_bit_pattern(scope):
    model = new(BNNET)
    prune_in_place(model, scope=scope)
    weights = all_weights(model)
    assert not torch.signbit(weights[weights == 0]).any()


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "sgd"}, {"optimizer": "adam", "ema": 0.9, "clip_norm": 1.0}, {"precision": "bf16"}]
)
def test_zeros_survive_fine_tuning_with_weight_decay_and_every_other_weight_moves(tiny_dataset, changes):
    model, reference = new(BNNET), new(BNNET)
    prune_in_place(reference)

    def fine_tune(number: int, each_step) -> None:
        train(model, tiny_dataset, range(1, 3), **{"weight_decay": 0.1} | changes)

    prune_in_place(model, fine_tune=fine_tune)
    for name, weight in prunable_weights(model).items():
        pruned = prunable_weights(reference)[name] == 0
        assert torch.equal(weight == 0, pruned)
        assert (weight != prunable_weights(reference)[name])[~pruned].all()


@pytest.mark.parametrize("scope", SCOPES)
def test_fine_tuning_gets_the_pruned_model_once_in_its_memory_format(scope):
    model, calls = new(BNNET), []
    strides = [weight.stride() for weight in prunable_weights(model).values()]
    prune_in_place(model, fine_tune=lambda number, each_step: calls.append((number, state(model))), scope=scope)
    assert [number for number, _ in calls] == [1]
    assert not different(calls[0][1], model.state_dict())
    assert [weight.stride() for weight in prunable_weights(model).values()] == strides


def test_no_mask_and_no_hook_remains_after_pruning():
    model = new(BNNET)
    names = [name for name, _ in model.named_parameters()]
    prune_in_place(model)
    assert [name for name, _ in model.named_parameters()] == names
    model(torch.rand(8, 1, 28, 28)).square().sum().backward()
    for _, module in prunable_layers(model, "both").items():
        assert module.weight.grad[module.weight == 0].any()


@pytest.mark.parametrize(("types", "other"), [("conv", nn.Linear(784, 10)), ("linear", nn.Conv2d(1, 10, 28))])
def test_a_network_without_a_layer_of_the_types_is_refused(types, other):
    with pytest.raises(InputError, match=f"prune.layers = '{types}': the network has no such layer"):
        prune_in_place(nn.Sequential(other, nn.Flatten()), layers=types)


@pytest.mark.parametrize("scope", SCOPES)
def test_the_memory_format_does_not_change_which_of_equal_weights_are_pruned(scope):
    states = []
    for memory_format in (torch.channels_last, torch.contiguous_format):
        model = new(BNNET).to(memory_format=memory_format)
        for weight in prunable_weights(model).values():
            weight.copy_(weight.sign())
        prune_in_place(model, scope=scope)
        states.append(model.state_dict())
    assert not different(*states)


@pytest.mark.parametrize("scope", SCOPES)
def test_pruning_more_of_a_pruned_network_keeps_its_zeros(scope):
    model = new(BNNET)
    prune_in_place(model, amount=0.4, scope=scope)
    first = all_weights(model)
    prune_in_place(model, amount=0.7, scope=scope)
    second = all_weights(model)
    assert (second[first == 0] == 0).all()
    assert (second == 0).sum() == pytest.approx(0.7 * len(second), abs=3)


def test_layers_of_attention_can_be_pruned_and_fine_tuned(tiny_dataset):
    model = attention(1, 28, 10)
    before = deepcopy(model)
    prune_in_place(model, fine_tune=lambda number, each_step: train(model, tiny_dataset, range(1, 2)), layers="linear")
    pruned = {row["layer"]: row["pruned"] for row in sparsity_by_layer(before, model)}
    assert pruned == {"embed": 28 * 16 / 2, "head": 16 * 10 / 2, "attention.out_proj": 16 * 16 / 2}


def test_sparsity_counts_weights_that_are_zero_or_removed_in_every_layer():
    before = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(4, 5))
    after = nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 5))
    for module, zeros in ((after[0], 3), (after[3], 15)):
        nn.init.ones_(module.weight)
        module.weight.data.view(-1)[:zeros] = 0
    assert sparsity_by_layer(before, after) == [
        {"layer": "0", "weights": 18, "pruned": 9 + 3, "sparsity": 12 / 18},
        {"layer": "3", "weights": 20, "pruned": 15, "sparsity": 0.75},
    ]


def test_rounds_of_equal_shares_of_the_rest_compose_to_the_amount():
    model, masks = new(BNNET), []

    def fine_tune(number: int, each_step) -> None:
        masks.append(all_weights(model) == 0)

    prune_in_place(model, fine_tune=fine_tune, schedule="iterative", rounds=3)
    total = len(all_weights(model))
    shares = [int(zeros.sum()) / total for zeros in masks]
    assert shares == pytest.approx([1 - 0.5 ** (number / 3) for number in (1, 2, 3)], abs=0.002)
    assert shares[2] == sum(round(0.5 * weight.numel()) for weight in prunable_weights(model).values()) / total
    for earlier, later in pairwise(masks):
        assert later[earlier].all()
    reference = new(BNNET)
    prune_in_place(reference)  # nothing was trained between the rounds: they choose what one shot chooses
    assert not different(reference.state_dict(), model.state_dict())


def test_the_polynomial_schedule_follows_its_cubic_and_then_stays():
    model, steps, shares = new(BNNET), 100, []
    total = len(all_weights(model))

    def fine_tune(number: int, each_step) -> None:
        for step in range(1, steps + 1):
            each_step(step / steps)
            shares.append(float((all_weights(model) == 0).sum()) / total)

    prune_in_place(model, fine_tune=fine_tune, schedule="polynomial", initial_sparsity=0.2, amount=0.9)
    expected = [0.9 - 0.7 * (1 - min(1, step / steps / RAMP)) ** 3 for step in range(1, steps + 1)]
    assert shares == pytest.approx(expected, abs=0.7 * 3 / UPDATES)
    assert shares[60:] == [shares[-1]] * 40
    assert shares[-1] == sum(round(0.9 * weight.numel()) for weight in prunable_weights(model).values()) / total


def test_zeros_of_the_polynomial_schedule_survive_momentum_and_the_average(tiny_dataset):
    model = new(BNNET)

    def fine_tune(number: int, each_step) -> None:
        train(model, tiny_dataset, range(1, 3), ema=0.9, optimizer="sgd", lr=0.01, each_step=each_step)

    prune_in_place(model, fine_tune=fine_tune, schedule="polynomial", amount=0.8)
    for weight in prunable_weights(model).values():
        assert (weight == 0).sum() == round(0.8 * weight.numel())


def test_amounts_by_layer_apply_where_a_pattern_names_the_layer():
    model = new(BNNET)
    groups = groups_of(model, prune_params(), noise())
    amounts = amounts_by_group({"0": 0.25, "[49]": 0.75}, groups)
    assert amounts == {"0": 0.25, "4": 0.75, "9": 0.75, "12": 0.0}
    pruning_state = PruningState(model, groups, prune_params(), Importance("l1", noise(), 8, 0))
    run_schedule(pruning_state, amounts, lambda number, each_step: None, Checkpointer())
    assert {row["layer"]: row["sparsity"] for row in sparsity_by_layer(new(BNNET), model)} == amounts


@pytest.mark.parametrize("criterion", ["taylor", "random", "l2"])
def test_the_weights_of_the_lowest_importance_are_pruned(criterion):
    model = new(BNNET)
    importance = Importance(criterion, noise(), 32, seed=3)
    importance.prepare(model)
    scores = {name: importance.score_weights(module.weight) for name, module in prunable_layers(model, "both").items()}
    prune_in_place(model, importance=criterion, images=32, amount=0.3)
    if criterion == "random":  # `prune_in_place` has another seed
        scores = None
    for name, weight in prunable_weights(model).items():
        assert (weight == 0).sum() == round(0.3 * weight.numel())
        if scores:
            score = scores[name.removesuffix(".weight")]
            assert score[weight == 0].max() <= score[weight != 0].min()


def test_taylor_is_the_weight_times_the_gradient_of_the_mean_loss_over_all_images():
    model, data = new(BNNET).eval(), noise()
    importance = Importance("taylor", data, num_images=1000, seed=0)
    importance.prepare(model)
    scores = importance.score_weights(model[0].weight)
    model.zero_grad()
    loss = F.cross_entropy(model(data.normalize(data.train.images)), data.train.labels)
    loss.backward()
    assert torch.allclose(scores, (model[0].weight * model[0].weight.grad).abs(), rtol=1e-4, atol=1e-8)


def test_random_importance_depends_on_the_seed_alone():
    def scores(seed: int) -> Tensor:
        torch.rand(7)
        importance = Importance("random", noise(), 8, seed)
        importance.prepare(new(BNNET))
        return importance.score_weights(new(BNNET)[4].weight)

    assert torch.equal(scores(1), scores(1))
    assert not torch.equal(scores(1), scores(2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exclude": ["conv9"]}, "params.yaml: prune.exclude = 'conv9': names no layer; layers are 0, 4, 9, 12"),
        ({"exclude": ["*"]}, "params.yaml: prune.layers = 'both': nothing can be pruned: prune.exclude names them all"),
    ],
)
def test_patterns_must_name_layers_and_leave_some(changes, message):
    with pytest.raises(InputError) as error:
        prune_in_place(new(BNNET), **changes)
    assert str(error.value) == message


@pytest.mark.parametrize("order", [1, -1])
def test_a_layers_own_name_goes_before_patterns(order):
    amounts = dict([("9", 0.25), ("*", 0.75)][::order])
    assert amounts_by_group(amounts, groups_of(new(BNNET), prune_params(), noise())) == {
        "0": 0.75, "4": 0.75, "9": 0.25, "12": 0.75
    }  # fmt: skip


def test_layers_of_a_sequential_are_named_by_numbers_without_quotes_too():
    assert prune_params(amount={4: 0.5}).amount == {"4": 0.5}


def test_the_error_for_an_unknown_layer_in_the_amounts_names_the_known_layers():
    groups = groups_of(new(BNNET), prune_params(exclude=["4"]), noise())
    with pytest.raises(InputError) as error:
        amounts_by_group({"0": 0.5, "conv7": 0.25}, groups)
    rule = "names no layer that can be pruned; these are 0, 9, 12"
    assert str(error.value) == f"params.yaml: prune.amount.conv7 = 0.25: {rule}"


def test_no_layer_loses_all_of_its_weights():
    model = new(BNNET)
    prune_in_place(model, amount=0.995)
    kept = [int(weight.count_nonzero()) for weight in prunable_weights(model).values()]
    assert kept[0] == 1
    assert min(kept) == 1


def test_layers_that_a_network_froze_by_itself_are_pruned_too():
    model = new(BNNET)
    model[0].requires_grad_(False)
    prune_in_place(model, amount=0.5)
    assert (model[0].weight == 0).sum() == 36


def test_excluded_layers_stay_as_they_are():
    model = new(BNNET)
    before = state(model)
    prune_in_place(model, exclude=["9", "1*"], scope="global")
    assert different(before, model.state_dict()) == {"0.weight", "4.weight"}


@pytest.mark.parametrize("changes", [{"optimizer": "sgd", "momentum": 0.9}, {"clip_norm": 0.1}])
def test_pruned_weights_are_zero_after_every_step_of_fine_tuning(tiny_dataset, changes):
    model, masks = new(BNNET), []

    def fine_tune(number: int, each_step) -> None:
        train(model, tiny_dataset, range(1, 2), each_step=lambda done: masks.append(all_weights(model) == 0), **changes)

    prune_in_place(model, fine_tune=fine_tune)
    assert len(masks) == 5
    assert all(torch.equal(mask, all_weights(model) == 0) for mask in masks)


@pytest.mark.parametrize("method", ["unstructured", "structured"])
def test_pruned_weights_and_channels_stay_pruned_in_later_rounds_whatever_their_importance(method):
    model, weights = new(BNNET), []

    def fine_tune(number: int, each_step) -> None:
        weights.append(model[4].weight.detach().clone())

    random = {"importance": "random", "schedule": "iterative", "rounds": 3}
    prune_in_place(model, fine_tune=fine_tune, method=method, amount=0.75, **random)
    first, second, third = weights
    if method == "unstructured":
        assert second[first == 0].count_nonzero() == third[second == 0].count_nonzero() == 0
    else:
        assert [len(weight) for weight in weights] == [10, 6, 4]


def test_layers_that_share_their_weight_count_once():
    first, second = nn.Linear(784, 16), nn.Linear(784, 16)
    second.weight = first.weight
    model = nn.ModuleDict({"flat": nn.Flatten(), "a": first, "b": second})
    groups = WeightGroups(model, {"a": first, "b": second})
    assert groups.sizes == {"a": 784 * 16}


def test_weights_that_are_computed_anew_each_time_are_left_alone():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3)), nn.Conv2d(2, 2, 3))
    assert list(prunable_layers(model, "both")) == ["1"]


def test_the_taylor_importance_of_a_layer_that_no_image_passes_is_zero():
    model = new(BNNET)
    model.append(nn.Linear(10, 10))
    model.forward = nn.Sequential(*list(model)[:-1]).forward
    importance = Importance("taylor", noise(), 8, 0)
    importance.prepare(model)
    assert not importance.score_weights(model[-1].weight).any()
    assert importance.score_weights(model[0].weight).any()
