"""Structured pruning removes the least important channels from all coupled layers; the others compute as before."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from lightweight.core.errors import InputError
from lightweight.macs import count_macs
from lightweight.networks.factory import build
from lightweight.pruning.amounts import amounts_by_group
from lightweight.pruning.importance import Importance
from lightweight.pruning.structured import ChannelGroups
from tests.examples import BNNET, groups_of, new, noise, prune_in_place, prune_params, state, train

IMAGE = torch.zeros(1, 1, 28, 28)


def with_random_batchnorm(model: nn.Module) -> nn.Module:
    """Initialise BatchNorm so that it shifts and scales, as after training, and return the model."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for tensor, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):
                    nn.init.uniform_(tensor, low, high)
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return model


def outputs(model: nn.Module, size: int = 28, channels: int = 1) -> Tensor:
    """Compute the logits of four random images in evaluation mode."""
    images = torch.rand(4, channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(images)


@pytest.mark.parametrize("amount", [0.25, 0.5, 0.9])
def test_every_group_loses_its_exact_share_and_the_outputs_keep_their_shape(amount):
    model = new(BNNET)
    prune_in_place(model, method="structured", amount=amount)
    assert [layer.weight.shape[0] for layer in (model[0], model[4], model[9], model[12])] == [
        max(1, 8 - round(8 * amount)),
        max(1, 16 - round(16 * amount)),
        32 - round(32 * amount),
        10,
    ]
    assert outputs(model).shape == (4, 10)


def test_the_global_share_is_exact_over_all_groups_and_differs_between_them():
    model = new(BNNET)
    model[9].weight.data[:24] *= 0.01
    groups = prune_in_place(model, method="structured", scope="global")
    kept = {name: dict(model.named_modules())[name].weight.shape[0] for name in groups.sizes}
    assert sum(kept.values()) == sum(groups.sizes.values()) / 2
    assert kept["9"] == 8


@pytest.mark.parametrize("round_to", [4, 8])
def test_the_number_of_kept_channels_is_a_multiple(round_to):
    model = new(BNNET)
    prune_in_place(model, method="structured", amount=0.6, round_to=round_to)
    for layer in (model[0], model[4], model[9]):
        assert layer.weight.shape[0] % round_to == 0
        assert layer.weight.shape[0] >= round_to


def test_layers_that_are_not_pruned_are_not_rounded():
    model = nn.Sequential(nn.Conv2d(1, 10, 3), nn.ReLU(), nn.Conv2d(10, 20, 3), nn.Flatten(), nn.Linear(11520, 10))
    prune_in_place(model, method="structured", round_to=8, amount={"0": 0.0, "2": 0.5})
    assert (model[0].out_channels, model[2].out_channels) == (10, 8)


class Gated(nn.Module):
    """A gated network: half of the channels of a layer scale the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.gate = nn.Conv2d(1, 8, 28), nn.Linear(8, 16)
        self.out = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        values, gates = self.gate(self.before(images).flatten(1)).chunk(2, 1)
        return self.out(values * gates.sigmoid())


def test_halves_of_a_gate_lose_the_same_channels():
    model = Gated()
    groups = prune_in_place(model, method="structured", amount=0.5)
    assert groups.sizes == {"before": 8, "gate": 8}
    assert (model.before.out_channels, model.gate.out_features, model.out.in_features) == (4, 8, 4)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.memory = nn.Linear(28, 16), nn.LSTM(16, 12, batch_first=True)
        self.out = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.memory(self.first(images.squeeze(1)))[0][:, -1])


def test_the_error_for_a_recurrent_network_is_one_line_that_names_a_layer():
    with pytest.raises(
        InputError, match=r"nothing can be pruned: first: without a channel .* where memory .*; out: it gives"
    ):
        prune_in_place(Recurrent(), method="structured")


def test_the_kept_channels_are_the_most_important_with_their_own_weights_in_order():
    model = nn.Sequential(nn.Conv2d(1, 6, 28, bias=False), nn.Flatten(), nn.Linear(6, 10))
    size = torch.tensor([3.0, 1.0, 6.0, 2.0, 5.0, 4.0])
    model[0].weight.data = size.view(6, 1, 1, 1) * torch.ones(6, 1, 28, 28)
    model[2].weight.data = size * torch.ones(10, 6)
    prune_in_place(model, method="structured", amount=0.5)
    assert model[0].weight[:, 0, 0, 0].tolist() == [6.0, 5.0, 4.0]
    assert model[2].weight[0].tolist() == [6.0, 5.0, 4.0]


NETWORKS = ["cnn", "lenet5", "tiny", "resnet20", "torchvision/resnet18", "torchvision/mobilenet_v2"]


@pytest.mark.parametrize("name", NETWORKS)
def test_removing_channels_that_nothing_reads_changes_no_output(name):
    size = 32 if "/" in name or name == "resnet20" else 28
    torch.manual_seed(0)
    model = with_random_batchnorm(build(name, 1, size, 10, name.startswith("torchvision/resnet")))
    image = torch.zeros(1, 1, size, size)
    channels = ChannelGroups(model, image, 1, True)
    assert channels.sizes
    importance = Importance("l1", noise(1, size), 8, 0)
    scores = channels.scores(importance)
    channels.mask_least_important({group: number // 2 for group, number in channels.sizes.items()}, scores)
    expected = outputs(model, size)
    before = count_macs(model, image)
    channels.remove_channels()
    actual = outputs(model, size)
    assert count_macs(model, image) < 0.6 * before
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3 * float(expected.square().mean().sqrt()))


def test_layers_of_a_residual_sum_lose_the_same_channels():
    model = build("torchvision/resnet18", 1, 32, 10, True)
    groups = ChannelGroups(model, torch.zeros(1, 1, 32, 32), 1, True)
    shared = groups.layers["conv1"]
    assert shared == ["conv1", "layer1.0.conv2", "layer1.1.conv2"]
    assert list(groups.skipped) == ["fc"]


def test_padded_shortcuts_keep_their_channels_because_the_padding_has_a_fixed_width():
    channels = ChannelGroups(
        with_random_batchnorm(build("resnet20", 3, 32, 10, False)), torch.zeros(1, 3, 32, 32), 1, True
    )
    assert list(channels.sizes) == [f"blocks.{number}.conv1" for number in range(9)]
    assert channels.skipped["blocks.3.conv2"] == "a fixed number of channels is added at blocks.3 (constant_pad_nd)"


@pytest.mark.parametrize(
    ("amounts", "conflict"),
    [
        ({"conv1": 0.5, "layer1.1.conv2": 0.25}, "layer1.1.conv2 = 0.25: conv1's 0.5"),
        ({"layer1.*": 0.5, "*.conv2": 0.25}, "*.conv2 = 0.25: layer1.*'s 0.5"),
    ],
)
def test_two_amounts_for_the_same_channels_are_refused(amounts, conflict):
    model = build("torchvision/resnet18", 1, 32, 10, True)
    params = prune_params(method="structured", amount=amounts)
    with pytest.raises(InputError) as error:
        amounts_by_group(params.amount, groups_of(model, params, noise(1, 32)))
    shared = "conv1 and layer1.0.conv2 and layer1.1.conv2"
    assert (
        str(error.value)
        == f"params.yaml: prune.amount.{conflict} is for the same channels or weights, those of {shared}"
    )


class Reshaping(nn.Module):
    """A network with a fixed number of channels in `forward`, and a layer that is never run."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.cut = nn.Conv2d(1, 8, 28), nn.Linear(8, 10), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images).view(-1, 8)
        return self.second(features)


def test_the_error_for_a_network_of_fixed_shapes_gives_a_reason_for_every_layer():
    with pytest.raises(InputError) as error:
        prune_in_place(Reshaping(), method="structured")
    text = str(error.value)
    assert text.startswith("params.yaml: prune.layers = 'both': nothing can be pruned: ")
    assert "cut: the network's outputs do not depend on it" in text
    assert "second: it gives the network's outputs" in text
    assert "first: without a channel the others are no longer where the network (view) expects them" in text
    assert text.endswith("second: it gives the network's outputs"), "the harmless one comes last"


def test_the_error_counts_the_layers_of_each_reason():
    shortcuts = (nn.Sequential(nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Unflatten(1, (8, 1, 1))) for _ in "1234567")
    with pytest.raises(InputError, match=r"8 layers \(0, 1.0, 2.0, 3.0, 4.0 and 3 more\): it gives"):
        prune_in_place(Residual(nn.Conv2d(1, 8, 28), *shortcuts), method="structured")


class Residual(nn.Sequential):
    """Layers whose results are added up."""

    def forward(self, images: Tensor) -> Tensor:
        total = self[0](images)
        for layer in self[1:]:
            total = total + layer(total)
        return total.flatten(1)


def test_a_network_that_cannot_be_run_is_an_error_of_one_line_that_names_the_layer(monkeypatch):
    model = new(BNNET)

    def fail(images: Tensor) -> Tensor:
        raise RuntimeError("odd (3, 3)\nand more")

    monkeypatch.setattr(model[4], "forward", fail)
    with pytest.raises(InputError) as error:
        ChannelGroups(model, IMAGE, 1, True)
    assert str(error.value) == "Channels of the network cannot be pruned: it cannot be traced at 4: odd (3, 3)"


def test_zeros_of_the_polynomial_schedule_stay_zero_until_they_are_removed(tiny_dataset):
    model, copies = new(BNNET), []

    def fine_tune(number: int, each_step) -> None:
        train(model, tiny_dataset, range(1, 3), each_step=each_step)
        copies.append(deepcopy(model))

    prune_in_place(model, tiny_dataset, fine_tune=fine_tune, method="structured", schedule="polynomial", amount=0.5)
    masked = copies[0]
    for layer, norm, kept in ((masked[0], masked[1], 4), (masked[4], masked[5], 8), (masked[9], masked[10], 16)):
        zero = layer.weight.flatten(1).abs().sum(1) == 0
        assert zero.sum() == len(zero) - kept
        assert not norm.weight[zero].any()
        assert not norm.bias[zero].any()
    torch.testing.assert_close(outputs(model), outputs(masked), rtol=1e-4, atol=1e-4)


def test_rounds_compose_to_the_amount_and_train_the_smaller_network(tiny_dataset):
    model, widths = new(BNNET), []

    def fine_tune(number: int, each_step) -> None:
        widths.append(model[9].out_features)
        train(model, tiny_dataset, range(number, number + 1))

    prune_in_place(model, tiny_dataset, fine_tune=fine_tune, method="structured", schedule="iterative", amount=0.75)
    assert widths == [16, 8]


def test_rounds_compose_over_all_groups_together():
    model = new(BNNET)
    groups = prune_in_place(model, method="structured", schedule="iterative", scope="global", amount=0.75)
    kept = sum(dict(model.named_modules())[name].weight.shape[0] for name in groups.sizes)
    assert kept == sum(groups.sizes.values()) / 4


def test_a_group_is_not_pruned_when_one_of_its_layers_is_excluded():
    model = build("torchvision/resnet18", 3, 32, 10, True)
    params = prune_params(method="structured")
    (coupled,) = (names for names in groups_of(model, params, noise(3, 32)).layers.values() if "conv1" in names)
    assert "layer1.0.conv2" in coupled
    groups = groups_of(model, params.model_copy(update={"exclude": ["layer1.0.conv2"]}), noise(3, 32))
    assert not {name for names in groups.layers.values() for name in names} & set(coupled)


def test_equal_seeds_remove_equal_channels_and_other_seeds_others():
    def pruned(seed: int) -> dict[str, Tensor]:
        model = new(BNNET)
        groups = groups_of(model, prune_params(method="structured"), noise())
        importance = Importance("random", noise(), 8, seed)
        importance.prepare(model)
        scores = groups.scores(importance)
        groups.mask_least_important({name: size // 2 for name, size in groups.sizes.items()}, scores)
        groups.remove_channels()
        return state(model)

    same, other = pruned(0), pruned(1)
    assert all(torch.equal(tensor, same[name]) for name, tensor in pruned(0).items())
    assert any(not torch.equal(tensor, same[name]) for name, tensor in other.items())


def test_taylor_and_magnitude_are_means_over_all_layers_that_compute_or_read_a_channel():
    model = nn.Sequential(nn.Conv2d(1, 4, 28, bias=False), nn.Flatten(), nn.Linear(4, 10))
    data = noise()
    groups = groups_of(model, prune_params(method="structured"), data)
    for criterion, power in (("l1", 1), ("l2", 2), ("taylor", 1)):
        importance = Importance(criterion, data, 32, 0)
        importance.prepare(model)
        weights = [model[0].weight, model[2].weight]
        terms = [w.detach() * w.grad if criterion == "taylor" else w.detach() for w in weights]
        computed, read = terms[0].abs().pow(power).flatten(1).sum(1), terms[1].abs().pow(power).sum(0)
        expected = (computed + read) / 2
        torch.testing.assert_close(groups.scores(importance)["0"], expected / expected.mean())
        model.zero_grad()


def test_the_importance_of_a_group_whose_weights_are_all_zero_is_zero():
    model = new(BNNET)
    for tensor in (model[4].weight, model[4].bias, model[5].weight, model[9].weight):
        nn.init.zeros_(tensor)
    groups = groups_of(model, prune_params(method="structured"), noise())
    assert not groups.scores(Importance("l1", noise(), 8, 0))["4"].any()


class Activated(nn.Module):
    """A convolution, the modules `behind`, and a classifier."""

    def __init__(self, *behind: nn.Module) -> None:
        super().__init__()
        self.conv, self.behind = nn.Conv2d(1, 8, 28), nn.Sequential(*behind)
        self.fc = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.behind(self.conv(images)).flatten(1))


@pytest.mark.parametrize("behind", [nn.Sigmoid(), nn.PReLU(), nn.PReLU(8), nn.Softplus(), nn.Tanh()], ids=str)
def test_masked_channels_have_no_effect_behind_any_activation(behind):
    model = Activated(behind)
    groups = groups_of(model, prune_params(method="structured"), noise())
    groups.mask_least_important({"conv": 4}, groups.scores(Importance("l1", noise(), 8, 0)))
    expected = outputs(model)
    groups.remove_channels()
    assert model.conv.out_channels == 4
    torch.testing.assert_close(outputs(model), expected)


@pytest.mark.parametrize(("behind", "left"), [(nn.GroupNorm(2, 8), 4), (nn.LayerNorm([8, 1, 1]), 4)], ids=str)
def test_channels_that_are_normalised_together_are_pruned(behind, left):
    model = Activated(behind)
    prune_in_place(model, method="structured")
    assert (model.conv.out_channels, len(model.behind[0].weight), model.fc.in_features) == (left, left, left)
    assert outputs(model).shape == (4, 10)


def test_a_module_with_two_names_is_not_pruned_because_no_file_could_rebuild_it():
    model = Activated(nn.ReLU())
    model.again = model.conv
    with pytest.raises(InputError, match="conv: its weights have several names"):
        prune_in_place(model, method="structured")


class PartialSums(nn.Module):
    """Layers that each add what was there before to their first channels, as ReXNet does, and two behind them.

    Every layer doubles the ways from one channel to another.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 28)
        self.layers = nn.ModuleList(nn.Conv2d(4 + index, 5 + index, 1) for index in range(number))
        self.hidden, self.out = nn.Linear(4 + number, 8), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        seen = self.stem(images)
        for layer in self.layers:
            computed, width = layer(seen), seen.shape[1]
            seen = torch.cat([computed[:, :width] + seen, computed[:, width:]], 1)
        return self.out(self.hidden(seen.flatten(1)))


def test_layers_among_which_the_ways_multiply_are_pruned():
    model = PartialSums(12)
    groups = prune_in_place(model, method="structured")
    assert groups.sizes == {"stem": 16, "hidden": 8}
    assert (model.hidden.out_features, model.out.in_features, model.hidden.in_features) == (4, 4, 8)
    assert outputs(model).shape == (4, 10)


class Caching(nn.Module):
    """A network that keeps what it has computed of a parameter while it is in evaluation mode, as LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.shift = nn.Conv2d(1, 8, 28), nn.Linear(8, 10), nn.Parameter(torch.ones(1))
        self.cache: dict[str, Tensor] = {}
        self.last: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        if self.training or "shift" not in self.cache:
            self.cache = {} if self.training else self.cache
            self.cache["shift"] = self.last = 2 * self.shift
        return self.fc(self.conv(images).flatten(1) + self.cache["shift"])


@pytest.mark.parametrize("importance", ["l1", "taylor"])
def test_networks_that_keep_tensors_in_evaluation_mode_are_pruned(importance):
    model = Caching()
    data = noise(number=300)  # more than one batch
    prune_in_place(model, data, method="structured", importance=importance, images=300)
    assert model.conv.out_channels == 4
    assert (model.cache, model.last) == ({}, None)
    deepcopy(model)


@pytest.mark.parametrize("changes", [{"schedule": "iterative"}, {"schedule": "polynomial", "importance": "taylor"}])
def test_frozen_layers_are_pruned_in_every_round(tiny_dataset, changes):
    model = new(BNNET)

    def fine_tune(number: int, each_step) -> None:
        train(model, tiny_dataset, range(number, number + 1), freeze=["0", "1"], each_step=each_step)

    prune_in_place(model, tiny_dataset, fine_tune=fine_tune, method="structured", amount=0.75, **changes)
    assert model[0].out_channels == 2
