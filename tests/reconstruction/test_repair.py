"""Repair brings the outputs of a pruned network back without training, and leaves alone what lost nothing."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from lightweight.gram.columns import Window, input_columns
from lightweight.reconstruction.repair import repair
from tests.examples import BNNET, different, new, noise, prune_in_place, state, trained
from tests.pruning.test_structured import with_random_batchnorm

IMAGES = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def batches() -> Iterator[Tensor]:
    yield from IMAGES.split(16)


class Residual(nn.Module):
    """A network with a residual sum and a depthwise convolution, and a reader of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.first = nn.Conv2d(12, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.second = nn.Conv2d(16, 12, 1, bias=False)
        self.head = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        images = self.stem(images).relu()
        images = images + self.second(self.depthwise(self.first(images).relu()).relu())
        return self.head(images.relu().mean((2, 3)))


def network(seed: int = 0) -> Residual:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Residual().eval().requires_grad_()


def mask_channels(model: Residual) -> None:
    """Zero channels of the residual sum and of the depthwise convolution, in what computes and what reads them."""
    with torch.no_grad():
        for layer in (model.stem, model.second):
            layer.weight[:4] = 0
        model.stem.bias[:4] = 0
        for layer in (model.first, model.depthwise):
            layer.weight[5:9] = 0
            layer.bias[5:9] = 0
        for layer, channels in ((model.first, slice(4)), (model.second, slice(5, 9)), (model.head, slice(4))):
            layer.weight[:, channels] = 0


def error(model: nn.Module, expected: nn.Module) -> float:
    with torch.no_grad():
        return float((model(IMAGES) - expected(IMAGES)).square().mean())


def test_readers_of_a_residual_sum_and_behind_a_depthwise_layer_are_repaired_and_it_is_not():
    before, masked = network(), network()
    mask_channels(masked)
    repaired = deepcopy(masked)
    repair(repaired, before, batches)
    assert different(state(masked), state(repaired)) == {
        "first.weight", "first.bias", "second.weight", "head.weight", "head.bias"
    }  # fmt: skip
    for name, weight in masked.named_parameters():
        if name.endswith("weight"):
            assert torch.equal(dict(repaired.named_parameters())[name] == 0, weight == 0)
    assert repaired.first.bias[5:9].eq(0).all()
    assert error(repaired, before) < 0.5 * error(masked, before)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_without_channels_is_the_least_squares_solution_with_an_intercept_where_it_has_a_bias(bias):
    before = nn.Sequential(nn.Conv2d(3, 6, 2, bias=bias)).eval()
    images = IMAGES + 1
    repaired = deepcopy(before)
    with torch.no_grad():
        repaired[0].weight[:, 1] = 0
    repair(repaired, before, lambda: iter(images.split(16)))
    columns = input_columns(before[0], images, 10**6, Window([1, 1], [0, 0], [1, 1]))[0].double()
    kept = repaired[0].weight.detach()[0].flatten() != 0
    inputs = torch.cat([columns[kept], torch.ones(int(bias), columns.shape[1])]).T
    wanted = (before[0].weight.detach().double().flatten(1) @ columns).T
    if bias:
        wanted = wanted + before[0].bias.detach()
    least = (inputs @ torch.linalg.lstsq(inputs, wanted).solution - wanted).square().mean()
    with torch.no_grad():
        reached = (repaired(images) - before(images)).square().mean()
    assert float(least) * 0.999 <= float(reached) < 1.01 * float(least)


def test_a_network_that_has_lost_nothing_does_not_change():
    model = network()
    before = state(model)
    repair(model, deepcopy(model), batches)
    assert not different(before, model.state_dict())


def test_frozen_and_shared_weights_are_left_alone():
    before, model = network(), network()
    model.first.weight.requires_grad_(False)
    before.other = nn.Linear(12, 5)
    before.other.weight = before.head.weight
    model.other = nn.Linear(12, 5)
    model.other.weight = model.head.weight
    mask_channels(model)
    masked = state(model)
    repair(model, before, batches)
    assert different(masked, model.state_dict()) == {"second.weight"}


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit(threads):
    states, default = [], torch.get_num_threads()
    before = nn.Sequential(nn.Conv2d(3, 40, 3)).eval()  # whose inputs are those of the network
    for number in (default, threads):
        model = deepcopy(before)
        with torch.no_grad():
            model[0].weight[torch.rand(40, 3, 3, 3, generator=torch.Generator().manual_seed(2)) < 0.5] = 0
        torch.set_num_threads(number)
        repair(model, before, batches)
        torch.set_num_threads(default)
        states.append(state(model))
    assert not different(*states)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("amount", [0.5, 0.93])
def test_pruning_by_obs_prunes_the_exact_share(amount, scope):
    model = new(BNNET)
    prune_in_place(model, importance="obs", amount=amount, scope=scope)
    weights = [layer.weight.detach() for layer in (model[0], model[4], model[9], model[12])]
    zeros = [int((weight == 0).sum()) for weight in weights]
    if scope == "layer":
        assert zeros == [round(amount * weight.numel()) for weight in weights]
    else:
        assert sum(zeros) == round(amount * sum(weight.numel() for weight in weights))
    assert not any(torch.signbit(weight[weight == 0]).any() for weight in weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"importance": "obs"},
        {"importance": "l1", "repair": True},
        {"importance": "l1", "repair": True, "method": "structured"},
        {"importance": "l1", "repair": True, "method": "structured", "schedule": "iterative", "rounds": 2},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
def test_a_trained_network_keeps_more_of_its_outputs(tiny_dataset, changes):
    source = trained("convnet", tiny_dataset)
    plain, repaired = deepcopy(source), deepcopy(source)
    prune_in_place(plain, tiny_dataset, **{"amount": 0.6, **changes, "importance": "l1", "repair": False})
    prune_in_place(repaired, tiny_dataset, **{"amount": 0.6, **changes})
    images = tiny_dataset.normalize(tiny_dataset.val.images)
    with torch.no_grad():
        wanted, without, with_repair = (model.eval()(images) for model in (source, plain, repaired))
    assert (with_repair - wanted).square().mean() < 0.4 * (without - wanted).square().mean()


def test_the_same_channels_go_with_and_without_repair():
    plain, repaired = (with_random_batchnorm(new(BNNET)) for _ in range(2))
    prune_in_place(plain, method="structured")
    prune_in_place(repaired, method="structured", repair=True)
    assert different(state(plain), state(repaired)) == {"4.weight", "4.bias", "9.weight", "12.weight", "12.bias"}


def test_pruning_leaves_modules_in_their_modes():
    model = new(BNNET).train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    prune_in_place(model, noise(), importance="obs")
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("changes", [{"importance": "obs"}, {"repair": True}, {"repair": True, "method": "structured"}])
def test_networks_in_training_mode_are_measured_in_evaluation_mode(changes):
    states = []
    for training in (False, True):
        model = with_random_batchnorm(new(BNNET)).train(training)
        prune_in_place(model, **changes)
        states.append(state(model))
    assert not different(*states)
