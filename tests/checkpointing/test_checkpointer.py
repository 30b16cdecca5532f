"""A run that is interrupted at any step and resumed ends in the same bits as a run without interruption."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lightweight.checkpointing.checkpointer import STATE, Checkpointer
from lightweight.checkpointing.run_folder import FINISHED
from lightweight.checkpointing.session import Session, resumable
from lightweight.core.tensor_file import write_tensors
from lightweight.data.dataset import Dataset
from lightweight.networks.model_file import ModelFile
from lightweight.pruning.importance import Importance
from lightweight.pruning.probe import SensitivityProbe
from lightweight.pruning.pruner import Pruner, PruningResult
from lightweight.sensitivity import scan_groups
from lightweight.swa import SwaParams, average, make_swa_schedule
from lightweight.training import loop
from lightweight.training.history import Epoch, History
from lightweight.training.loop import FineTune
from lightweight.training.params import TrainingSettings
from tests.examples import (
    augment_params,
    different,
    groups_of,
    new,
    prune_params,
    state,
    train_params,
    training_settings,
)

CHECKPOINTER = "lightweight.checkpointing.checkpointer"
EPOCHS, IMAGES, BATCH = 3, 40, 16  # three steps an epoch
STEPS = EPOCHS * 3
SWA = SwaParams(start=1, lr=0.01, anneal_epochs=1)


class Interruption(Exception):
    """Represent the end of a process in a test."""


class Dropping(nn.Module):
    """A network of convolutions, BatchNorm, dropout and a linear layer that calls `before` in every training step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3, stride=3), nn.BatchNorm2d(4), nn.Linear(4 * 16, 10)
        self.wide = nn.Conv2d(4, 4, 3, stride=2)  # channels_last changes the memory layout of its weights
        self.dropout = nn.Dropout(0.5)
        self.before: Callable[[], None] = lambda: None

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.before()
        return self.fc(self.dropout(torch.relu(self.wide(self.norm(self.conv(images)))).flatten(1)))


class Inline:
    """An executor without a thread, which runs a function when it is submitted."""

    def submit(self, function: Callable, *arguments: object) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*arguments))
        except OSError as error:
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def data(tiny_dataset) -> Dataset:
    return replace(tiny_dataset, train=tiny_dataset.train.take(torch.arange(IMAGES)))


@pytest.fixture(autouse=True)
def _save_at_every_step(monkeypatch):
    monkeypatch.setattr(f"{CHECKPOINTER}.MAX_LOST_SECONDS", 0.0)


def make_model(seed: int = 0) -> Dropping:
    """Build the network in channels_last, initialised by `seed`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Dropping().to(memory_format=torch.channels_last)


def run(
    data: Dataset, checkpointer: Checkpointer, stop: int | None = None, **changes
) -> tuple[dict[str, Tensor], History]:
    """Train, interrupted at the beginning of step `stop` if given, and return the weights and the history."""
    network, steps = make_model(), count(1)
    torch.manual_seed(99)  # in another process the global generator is not where it was

    def before() -> None:
        if stop is not None and next(steps) == stop:
            raise Interruption

    network.before = before
    params = train_params(batch_size=BATCH, augment=augment_params(shift=0.1, rotate=10.0), **changes)
    epochs = range(1, EPOCHS + 1)
    history = checkpointer.track("history", History())
    teacher = new("convnet", seed=1).eval() if params.teacher else None
    session = Session(data, 3, checkpointer=checkpointer)
    rows = loop.train(network, session, training_settings(params, EPOCHS, teacher), epochs)
    list(history.record(rows, params.patience))
    return state(network), history


def open_checkpointer(tmp_path: Path, log: Callable[[str], None] = lambda line: None) -> Checkpointer:
    """Open the checkpoints of a run in a folder, which are written without a thread."""
    return Checkpointer(tmp_path, "train", Inline(), log)


@pytest.fixture(scope="module")
def uninterrupted(data) -> Callable[..., tuple[dict[str, Tensor], list[Epoch]]]:
    """uninterrupted(**changes): the weights and rows of a run without interruption, trained once."""
    known: dict[str, tuple] = {}

    def uninterrupted(**changes):
        key = json.dumps(changes)
        if key not in known:
            weights, history = run(data, Checkpointer(), **changes)
            known[key] = weights, history.rows
        return known[key]

    return uninterrupted


@pytest.mark.parametrize("stop", range(1, STEPS + 1))
def test_a_run_that_is_interrupted_at_any_step_ends_in_the_same_bits(tmp_path, data, uninterrupted, stop):
    with pytest.raises(Interruption):
        run(data, open_checkpointer(tmp_path), stop)
    weights, history = run(data, open_checkpointer(tmp_path))
    expected, rows = uninterrupted()
    assert not different(weights, expected)
    assert history.rows == rows
    assert [row.epoch for row in rows] == [1, 2, 3]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "schedule": "step", "weight_decay": 0.1},
        {"optimizer": "sgd", "momentum": 0.0, "clip_norm": 0.1},
        {"optimizer": "adam", "schedule": "cosine", "decay_all": False},
        {"optimizer": "adamw", "schedule": "onecycle", "ema": 0.9},
        {"precision": "bf16", "label_smoothing": 0.1},
        {"freeze": ["conv", "norm"], "schedule": "onecycle"},
        {"teacher": "its file", "ema": 0.5},
        {"patience": 1, "lr": 1.0, "ema": 0.99},
    ],
    ids=str,
)
def test_a_run_that_is_interrupted_thrice_ends_in_the_same_bits_with_every_optimizer_and_schedule(
    tmp_path, data, uninterrupted, changes
):
    for stop in (2, 2, 3):  # each run begins where the one before was interrupted
        with pytest.raises(Interruption):
            run(data, open_checkpointer(tmp_path), stop, **changes)
    weights, history = run(data, open_checkpointer(tmp_path), **changes)
    expected, rows = uninterrupted(**changes)
    assert not different(weights, expected)
    assert history.rows == rows


def test_only_the_interrupted_step_is_repeated(tmp_path, data, uninterrupted):
    for stop in (4, 3, 2):
        with pytest.raises(Interruption):
            run(data, open_checkpointer(tmp_path), stop)
    remaining = STEPS - 3 - 2 - 1
    with pytest.raises(Interruption):
        run(data, open_checkpointer(tmp_path), stop=remaining)
    weights, _ = run(data, open_checkpointer(tmp_path), stop=2)  # there is no second step
    assert not different(weights, uninterrupted()[0])


def test_a_finished_run_is_not_repeated(tmp_path, data, uninterrupted):
    run(data, open_checkpointer(tmp_path), ema=0.9)
    weights, history = run(data, open_checkpointer(tmp_path), stop=1, ema=0.9)
    expected, rows = uninterrupted(ema=0.9)
    assert not different(weights, expected)
    assert history.rows == rows


def test_weight_averaging_that_is_interrupted_at_any_step_ends_in_the_same_bits(tmp_path, data):
    def averaged(checkpointer: Checkpointer, stop: int | None) -> dict[str, Tensor]:
        network, steps = make_model(), count(1)
        torch.manual_seed(99)

        def before() -> None:
            if next(steps) == stop:
                raise Interruption

        network.before = before
        settings = TrainingSettings(train_params(batch_size=BATCH), 0.01, partial(make_swa_schedule, SWA))
        rows = loop.train(network, Session(data, 0, checkpointer=checkpointer), settings, range(2, 5))
        list(average(network, rows, checkpointer))
        return state(network)

    expected = averaged(Checkpointer(), None)
    for stop in range(1, STEPS + 1):
        folder = tmp_path / str(stop)
        with pytest.raises(Interruption):
            averaged(open_checkpointer(folder), stop)
        assert not different(averaged(open_checkpointer(folder), None), expected), stop


PRUNINGS = [
    {"amount": 0.75, "layers": "conv"},
    {"schedule": "polynomial", "importance": "taylor", "scope": "global", "initial_sparsity": 0.2},
    {"schedule": "iterative", "method": "structured", "importance": "taylor"},
    {"schedule": "polynomial", "method": "structured", "importance": "random", "scope": "global"},
    {"amount": "auto", "max_drop": 0.5, "method": "structured", "trials": 2},
    {"amount": "auto", "target_parameters": 0.3, "images": 30},
    {"schedule": "iterative", "importance": "obs", "scope": "global"},
    {"schedule": "iterative", "method": "structured", "repair": True},
]


@pytest.mark.parametrize("changes", PRUNINGS, ids=lambda changes: " ".join(map(str, changes.values())))
def test_pruning_that_is_interrupted_anywhere_ends_in_the_same_bits(tmp_path, data, changes):
    source, pruning = ModelFile(make_model(), "dropping", {}), prune_params(**changes)
    params = train_params(batch_size=BATCH, ema=0.5)

    def pruned(checkpointer: Checkpointer, stop: int | None) -> tuple[int, PruningResult]:
        moments = count(1)  # the steps of training and the checkpoints
        torch.manual_seed(99)

        def count_moment() -> None:
            if next(moments) == stop:
                raise Interruption

        session = Session(data, 0, checkpointer=checkpointer)
        train_network = FineTune(session, params, 0.01, 1, None)

        def fine_tune(network: nn.Module, round_: int, each_step) -> Iterator[Epoch]:
            network.before = count_moment
            return train_network(network, round_, each_step)

        save_if_due = checkpointer.save_if_due
        checkpointer.save_if_due = lambda position: (save_if_due(position), count_moment())
        result = Pruner(source, pruning, session, fine_tune).run()
        return next(moments), result

    moments, undisturbed = pruned(Checkpointer(), None)
    expected = undisturbed.model_file
    assert moments > STEPS / 2
    for stop in range(1, moments, 1 + moments // 12):
        folder = tmp_path / str(stop)
        folder.mkdir()
        with pytest.raises(Interruption):
            pruned(open_checkpointer(folder), stop)
        _, result = pruned(open_checkpointer(folder), None)
        assert not different(state(result.model_file.model), state(expected.model)), stop
        assert result.model_file.shapes == expected.shapes
        assert result.probes == undisturbed.probes
        assert result.history.rows == undisturbed.history.rows


@pytest.mark.parametrize(
    ("stop", "position"), [(2, "epoch 1 of 3, batch 2 of 3"), (4, "epoch 2 of 3"), (9, "epoch 3 of 3, batch 3 of 3")]
)
def test_the_line_on_resumption_names_the_stage_the_epoch_and_the_batch(tmp_path, data, stop, position):
    with pytest.raises(Interruption):
        run(data, open_checkpointer(tmp_path), stop)
    lines = []
    open_checkpointer(tmp_path, lines.append)
    assert lines == [f"Resuming train at {position}"]


def test_probes_from_before_an_interruption_are_not_repeated(tmp_path, data, monkeypatch):
    def probes(until: int) -> tuple[list[str], list[dict]]:
        lines: list[str] = []
        network, calls = make_model(), count(1)

        def reestimate(*_) -> None:
            if next(calls) == until:
                raise Interruption

        monkeypatch.setattr("lightweight.pruning.probe.reestimate_batchnorm", reestimate)
        checkpointer = Checkpointer(tmp_path, "sensitivity", Inline(), lines.append)
        session, importance = Session(data, 0, checkpointer=checkpointer), Importance("l1", data, 30, 0)
        probe = SensitivityProbe(network, groups_of(network, prune_params(), data), session, importance, 30, 9)
        return lines, scan_groups(probe, 0.5)

    with pytest.raises(Interruption):
        probes(until=3)
    lines, rows = probes(until=3)  # the dense model and two layers have been probed, one remains
    assert lines == ["Resuming sensitivity at probe 3"]
    assert len(rows) == 3


def flip_a_bit(content: bytes) -> bytes:
    return content[:-100] + bytes([content[-100] ^ 4]) + content[-99:]


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], flip_a_bit, lambda content: b""])
@pytest.mark.parametrize("name", [STATE, "added"])
def test_a_damaged_checkpoint_is_not_used_and_the_run_starts_over(tmp_path, data, uninterrupted, name, damage):
    first = open_checkpointer(tmp_path)
    (tmp_path / "added").write_bytes(bytes(200))
    first.add_file(tmp_path / "added")
    with pytest.raises(Interruption):
        run(data, first, 5)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    lines = []
    weights, history = run(data, open_checkpointer(tmp_path, lines.append))
    assert lines == [f"train starts over: the checkpoint in {tmp_path} is damaged"]
    assert not different(weights, uninterrupted()[0])
    assert history.rows == uninterrupted()[1]


def test_a_checkpoint_with_a_missing_file_is_damaged(tmp_path, data):
    first = open_checkpointer(tmp_path)
    (tmp_path / "added").write_bytes(bytes(200))
    first.add_file(tmp_path / "added")
    with pytest.raises(Interruption):
        run(data, first, 5)
    (tmp_path / "added").unlink()
    lines = []
    open_checkpointer(tmp_path, lines.append)
    assert lines == [f"train starts over: the checkpoint in {tmp_path} is damaged"]


def test_a_removed_file_stays_until_no_checkpoint_refers_to_it(tmp_path):
    checkpointer = open_checkpointer(tmp_path)
    checkpointer.track("number", Number(1))
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        path.write_text("weights")
        checkpointer.add_file(path)
    checkpointer.save("here")
    checkpointer.remove_file(old)
    checkpointer.remove_file(old)
    assert old.exists()
    assert open_checkpointer(tmp_path).files.keys() == {"old", "new"}, "an interruption here still finds it"
    checkpointer.save("there")
    assert not old.exists()
    assert open_checkpointer(tmp_path).files.keys() == {"new"}
    checkpointer.export_files(tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["new"]


def test_added_files_are_exported_even_to_another_file_system(tmp_path, monkeypatch):
    checkpointer = open_checkpointer(tmp_path / "work")
    for name in ("one", "two"):
        path = tmp_path / "work" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        checkpointer.add_file(path)
    old = tmp_path / "out/old"
    old.parent.mkdir()
    old.touch()
    checkpointer.export_files(tmp_path / "out")
    first = {file.name: file.read_text() for file in (tmp_path / "out").iterdir()}

    def another_file_system(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", another_file_system)
    checkpointer.export_files(tmp_path / "out")
    second = {file.name: file.read_text() for file in (tmp_path / "out").iterdir()}
    assert first == second == {"one": "one", "two": "two"}


class Number:
    """An object whose state is one value."""

    def __init__(self, value: object = None) -> None:
        self.value = value

    def state_dict(self) -> dict:
        return {"value": self.value}

    def load_state_dict(self, state: dict) -> None:
        self.value = state["value"]


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.seconds)
    monkeypatch.setattr(f"{CHECKPOINTER}.MAX_LOST_SECONDS", 20.0)
    return now


def written(checkpointer: Checkpointer, clock: SimpleNamespace, seconds: float, method: str = "save_if_due") -> bool:
    """Call a method of the checkpointer after some seconds, and return whether it wrote a checkpoint."""
    path = checkpointer.folder / STATE
    path.unlink(missing_ok=True)
    clock.seconds += seconds
    getattr(checkpointer, method)("here")
    return path.exists()


def test_small_steps_are_saved_every_twenty_seconds_and_large_ones_at_once(tmp_path, clock):
    checkpointer = open_checkpointer(tmp_path)
    checkpointer.track("number", Number(1))
    assert [written(checkpointer, clock, 5) for _ in range(8)] == [False, False, False, True] * 2
    assert [written(checkpointer, clock, 0.1, "save") for _ in range(3)] == [True, True, True]
    assert [written(checkpointer, clock, 5) for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize(("cost", "pause"), [(0.03, 1.0), (0.3, 10.0), (3.0, 20.0)])
def test_a_checkpoint_that_takes_long_is_written_rarely_but_never_more_than_twenty_seconds_apart(
    tmp_path, clock, monkeypatch, cost, pause
):
    def slow(*arguments: object) -> None:
        clock.seconds += cost
        write_tensors(*arguments)

    monkeypatch.setattr(f"{CHECKPOINTER}.write_tensors", slow)
    checkpointer = open_checkpointer(tmp_path)
    checkpointer.track("number", Number(1))
    assert written(checkpointer, clock, 1, "save")
    last = checkpointer.last
    while not written(checkpointer, clock, 0.25, "save"):
        pass
    assert checkpointer.last - last == pytest.approx(max(pause, cost), abs=0.5)


def test_a_checkpoint_that_cannot_be_written_is_logged_and_the_run_continues(tmp_path, clock, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "not written: No space left on device", "state")

    lines = []
    checkpointer = open_checkpointer(tmp_path, lines.append)
    checkpointer.track("number", Number(1))
    with monkeypatch.context() as patch:
        patch.setattr(f"{CHECKPOINTER}.write_tensors", full)
        assert not written(checkpointer, clock, 1, "save")
    assert written(checkpointer, clock, 30, "save")
    assert lines == ["train cannot be resumed from here: state: not written: No space left on device"]


def test_any_state_of_dicts_lists_numbers_and_tensors_comes_back(tmp_path):
    value = {
        "int keys": {0: [1, 2.5], 1: None, "text": "größer"},
        "items": {"tensor": torch.arange(3), "items": [torch.tensor(1.5), True]},
        "float": 0.1 + 0.2,
        "inf": float("inf"),
        "strided": torch.arange(6.0).view(2, 3).T,
    }
    checkpointer = open_checkpointer(tmp_path)
    checkpointer.track("number", Number(value))
    checkpointer.save("here")
    restored = open_checkpointer(tmp_path).track("number", Number()).value
    assert restored.keys() == value.keys()
    assert restored["int keys"] == value["int keys"]
    assert torch.equal(restored["items"]["tensor"], torch.arange(3))
    assert restored["items"]["items"][0].item() == 1.5
    assert restored["items"]["items"][1] is True
    assert (restored["float"], restored["inf"]) == (value["float"], value["inf"])
    assert torch.equal(restored["strided"], value["strided"])


def test_changes_after_a_checkpoint_are_not_in_the_checkpoint(tmp_path):
    tensor = torch.zeros(3)
    checkpointer = open_checkpointer(tmp_path)
    checkpointer.track("number", Number([tensor, tensor]))
    checkpointer.save("here")
    tensor += 1
    first, second = open_checkpointer(tmp_path).track("number", Number()).value
    assert torch.equal(first, torch.zeros(3))
    assert torch.equal(second, torch.zeros(3))


@pytest.fixture
def stage(tmp_path) -> Callable[..., list[str]]:
    """stage(value): run a stage that counts to `value`, and return the lines of its log and the value it began with."""
    (tmp_path / "dvc.lock").write_text("old")

    def stage(value: int, fail: bool = False, params: object = 1, name: str = "train") -> list[str]:
        lines: list[str] = []
        lock, output = tmp_path / "dvc.lock", tmp_path / "output"
        output.write_text(f"{value}")
        with resumable(
            tmp_path / "work", name, {"params": params}, [], output, log=lines.append, lock=lock
        ) as checkpointer:
            number = checkpointer.track("number", Number(0))
            lines.append(f"was {number.value}")
            number.value = value
            checkpointer.save("here")
            if fail:
                raise Interruption
        return lines

    return stage


def folders(tmp_path: Path, name: str = "train") -> int:
    return len(list((tmp_path / "work" / name).iterdir()))


def test_a_failed_stage_is_resumed_and_one_that_dvc_has_recorded_is_repeated(tmp_path, stage):
    with pytest.raises(Interruption):
        stage(1, fail=True)
    assert stage(2) == ["Resuming train at here", "was 1"]
    assert stage(3) == ["Resuming train at here", "was 2"], "DVC was interrupted before it wrote its lock file"
    (tmp_path / "dvc.lock").write_text("damaged")
    assert stage(4) == ["Resuming train at here", "was 3"], "or while it wrote it"
    (tmp_path / "dvc.lock").write_text(hashlib.md5(b"4").hexdigest())
    assert stage(5) == ["was 0"]
    assert stage(6, params=2) == ["was 0"]


def test_finished_runs_are_removed_when_another_stage_starts_and_interrupted_runs_stay(tmp_path, stage):
    stage(1, params=1)
    with pytest.raises(Interruption):
        stage(1, fail=True, params=2)
    stage(1, params=3)
    assert folders(tmp_path) == 2
    stage(1, name="swa")
    assert folders(tmp_path) == 1
    assert stage(2, params=2) == ["Resuming train at here", "was 1"]


def test_the_two_newest_interrupted_runs_stay(tmp_path, stage):
    for number in range(5):
        with pytest.raises(Interruption):
            stage(number, fail=True, params=number)
    assert folders(tmp_path) == 3
    assert stage(9, params=4)[0] == "Resuming train at here"
    assert stage(9, params=0) == ["was 0"]


def test_a_finished_folder_is_marked(tmp_path, stage):
    stage(1)
    (folder,) = (tmp_path / "work/train").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [FINISHED, STATE]


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b"[]", b'{"lock": 1}'])
def test_a_damaged_mark_of_a_finished_run_stops_nothing(tmp_path, stage, content):
    stage(1)
    (folder,) = (tmp_path / "work/train").iterdir()
    (folder / FINISHED).write_bytes(content)
    assert stage(2) == ["Resuming train at here", "was 1"]
