"""The pruned model has the amounts, the size, the MACs or the accuracy that section `prune` asks for."""

import json
from copy import deepcopy

import pytest
import torch
from torch import nn

from lightweight.checkpointing.session import Session
from lightweight.core.errors import InputError
from lightweight.core.params import load_params
from lightweight.macs import count_macs
from lightweight.networks.model_file import ModelFile
from lightweight.networks.validation import validate
from lightweight.pruning.groups import find_groups
from lightweight.pruning.params import PruneParams
from lightweight.pruning.pruner import Pruner, PruningResult
from lightweight.training.history import Epoch
from tests.examples import BNNET, different, prune_params, state, train, trained, without_test_split


def no_fine_tuning(model: nn.Module, round_: int, each_step) -> list[Epoch]:
    each_step(1.0)
    return []


@pytest.fixture
def source(tiny_dataset) -> ModelFile:
    return ModelFile(deepcopy(trained(BNNET, tiny_dataset)), BNNET, {"image_size": 28})


def prune(source, dataset, fine_tune=no_fine_tuning, **changes) -> tuple[PruningResult, ModelFile]:
    """Prune the model by the changed parameters, and return the result and its model."""
    result = Pruner(source, prune_params(**changes), Session(dataset, seed=0), fine_tune).run()
    return result, result.model_file


@pytest.mark.parametrize("method", ["unstructured", "structured"])
@pytest.mark.parametrize("amount", [0.0, {"0": 0.0}, {}])
def test_an_amount_of_zero_is_the_identity_and_trains_nothing(source, tiny_dataset, method, amount):
    def fail(*_, **__) -> None:
        pytest.fail("trained")

    before = state(source.model)
    result, pruned = prune(source, tiny_dataset, fail, amount=amount, method=method)
    assert pruned is source
    assert not different(before, pruned.model.state_dict())
    assert result.history.rows == []


def test_an_amount_of_zero_does_not_hide_a_pattern_without_a_layer(source, tiny_dataset):
    with pytest.raises(InputError, match=r"prune\.exclude = 'conv9': names no layer"):
        prune(source, tiny_dataset, amount=0.0, exclude=["conv9"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_drop": 0.01}, "prune.max_drop = 0.01: needs amount: auto, which finds shares by layer for it"),
        (
            {"method": "structured", "target_macs": 0.4},
            "prune.target_macs = 0.4: needs amount: auto, which finds shares by layer for it",
        ),
        (
            {"schedule": "polynomial", "initial_sparsity": 0.8},
            "prune.amount = 0.5: must be at least initial_sparsity, 0.8, from which the polynomial schedule rises",
        ),
        ({"amount": {"[12]*": 1.0, "conv1": 0.5}}, "prune.amount.[12]* = 1.0: must be less than 1"),
        ({"amount": "auto"}, "prune.target_macs = None: amount: auto needs exactly one of max_drop, target_parameters"),
    ],
)
def test_the_error_for_params_that_contradict_each_other_is_one_line(tmp_path, changes, message):
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps({"prune": prune_params().model_dump() | changes}))
    with pytest.raises(InputError) as error:
        load_params(path, prune=PruneParams)
    assert str(error.value).startswith(f"{path}: {message}")


def test_the_source_is_not_changed(source, tiny_dataset):
    before = state(source.model)
    _, pruned = prune(source, tiny_dataset, method="structured")
    assert pruned.shapes["0.weight"] == [4, 1, 3, 3]
    assert not different(before, source.model.state_dict())


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("unstructured", {"target_parameters": 0.25}),
        ("structured", {"target_parameters": 0.25}),
        ("structured", {"target_macs": 0.4}),
    ],
)
def test_a_target_is_met_and_hardly_more(source, tiny_dataset, method, target):
    def cost(model: nn.Module) -> int:
        if "target_macs" in target:
            return count_macs(model, tiny_dataset.blank(1))
        parameters = (
            tensor.count_nonzero() if method == "unstructured" else tensor.numel() for tensor in model.parameters()
        )
        return int(sum(parameters))

    result, pruned = prune(source, tiny_dataset, method=method, amount="auto", images=60, **target)
    share = cost(pruned.model) / cost(source.model)
    (wanted,) = target.values()
    assert wanted - 0.15 < share <= wanted
    assert {row["kind"] for row in result.probes} == {"layer"}


def test_the_search_removes_the_most_that_stays_within_the_drop_on_validation(source, tiny_dataset):
    def fine_tune(model: nn.Module, round_: int, each_step) -> list[Epoch]:
        return train(model, tiny_dataset, range(round_, round_ + 1), lr=0.001, each_step=each_step)

    _, before = validate(source.model, tiny_dataset, tiny_dataset.val)
    changes = {"method": "structured", "amount": "auto", "max_drop": 0.05, "trials": 3, "images": 60}
    result, pruned = prune(source, without_test_split(tiny_dataset), fine_tune, **changes)
    _, after = validate(pruned.model, tiny_dataset, tiny_dataset.val)
    trials = [row for row in result.probes if row["kind"] == "trial"]
    good = [row for row in trials if before - row["val_accuracy"] <= 0.05]
    assert len(trials) == 3
    assert good
    assert max(row["amount"] for row in good) == pytest.approx(
        1 - count_macs(pruned.model, tiny_dataset.blank(1)) / count_macs(source.model, tiny_dataset.blank(1))
    )
    assert after == max(good, key=lambda row: row["amount"])["val_accuracy"]
    assert [row["probe"] for row in result.probes] == list(range(1, len(result.probes) + 1))
    assert len(result.history.rows) == 1


def test_the_source_is_returned_when_no_trial_stays_within_the_drop(source, tiny_dataset):
    def spoil(model: nn.Module, round_: int, each_step) -> list[Epoch]:
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        return []

    _, pruned = prune(source, tiny_dataset, spoil, amount="auto", max_drop=0.01, trials=2, images=60)
    assert pruned is source


class Remembering(nn.Module):
    """A network in which an LSTM keeps its channels; a wide one has most of its MACs elsewhere."""

    def __init__(self, wide: bool) -> None:
        super().__init__()
        self.patches, self.memory = nn.Conv2d(1, 8, 7, 7), nn.LSTM(8, 8, batch_first=True)
        width = 8000 if wide else 4
        self.first, self.second = nn.Linear(8, width), nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.second(self.first(self.memory(tokens)[0].mean(1)).relu())


@pytest.mark.parametrize("wide", [True, False])
def test_the_log_says_what_is_spared_and_warns_where_little_is_removed(tiny_dataset, wide):
    lines: list[str] = []
    torch.manual_seed(0)
    file = ModelFile(Remembering(wide).eval(), "its network", {})
    session = Session(tiny_dataset, seed=0, log=lines.append)
    result = Pruner(file, prune_params(method="structured"), session, no_fine_tuning).run()
    outputs = "it gives the network's outputs"
    reported = [line for line in lines if "spared:" in line]
    assert len(reported) == 1
    assert reported[0].startswith("prune  structured  spared: ")
    assert reported[0].endswith(f"second: {outputs}")
    spared = {row["layer"]: row["spared"] for row in result.sparsity}
    assert "not known at memory" in spared["patches"]
    assert spared["patches"] in reported[0]
    assert (spared["first"], spared["second"]) == ("", outputs)
    warnings = [line for line in lines if line.startswith("warning: prune.amount = 0.5: 50% of the channels")]
    assert len(warnings) == (not wide)


def test_a_line_says_what_share_of_the_macs_no_group_covers_and_which_operator_is_the_reason(tiny_dataset):
    torch.manual_seed(0)
    model, lines = Remembering(False).eval(), list[str]()
    session = Session(tiny_dataset, seed=0, log=lines.append)
    result = Pruner(
        ModelFile(model, "its network", {}), prune_params(method="structured"), session, no_fine_tuning
    ).run()
    patches, rest = 16 * 49 * 8, 8 * 4 + 4 * 10  # MACs: of 8 channels in 16 places; those of an LSTM are not counted
    (line,) = [line for line in lines if "nothing is removed" in line]
    reason = next(row["spared"] for row in result.sparsity if row["layer"] == "patches")
    share = f"{patches / (patches + rest):.0%}"
    assert "is not known at memory (" in reason
    assert line == (
        f"warning: {share} of the MACs are in layers of which nothing is removed: {share} in patches: {reason}"
    )


class Functional(nn.Module):
    """A convolution whose weight is no layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.rand(8, 1, 7, 7))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(images, self.kernel, stride=7)


def test_macs_outside_of_layers_are_told_by_the_module_that_computes_them(tiny_dataset):
    model = nn.Sequential(nn.Sequential(Functional(), nn.Flatten()), nn.Linear(128, 4), nn.Linear(4, 10)).eval()
    groups = find_groups(model, tiny_dataset.blank(1), prune_params(method="structured"), "prune")
    total = 16 * 49 * 8 + 128 * 4 + 4 * 10
    assert groups.uncovered() == {"0.0": (16 * 49 * 8 / total, "it is no convolution and no linear layer")}


def test_no_line_says_so_where_groups_cover_nine_tenths_of_the_macs(tiny_dataset):
    lines: list[str] = []
    file = ModelFile(Remembering(True).eval(), "its network", {})
    Pruner(
        file, prune_params(method="structured"), Session(tiny_dataset, seed=0, log=lines.append), no_fine_tuning
    ).run()
    assert not [line for line in lines if "nothing is removed" in line]


def test_a_layer_that_shares_its_weights_is_reported_as_such(tiny_dataset):
    lines: list[str] = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Linear(10, 10), nn.Linear(10, 10))
    model[3].weight = model[2].weight
    file = ModelFile(model.eval(), "its network", {})
    session = Session(tiny_dataset, seed=0, log=lines.append)
    result = Pruner(file, prune_params(exclude=["1"]), session, no_fine_tuning).run()
    reasons = ["prune.exclude names it", "", "its weights are those of another layer"]
    assert [row["spared"] for row in result.sparsity] == reasons
    assert lines == [f"prune  unstructured  spared: 1: {reasons[0]}; 3: {reasons[2]}"]
