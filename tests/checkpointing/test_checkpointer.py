"""A run that is interrupted anywhere and resumed ends in the bits of one that is not."""

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

from lightweight.checkpointing import checkpointer as resuming
from lightweight.checkpointing.checkpointer import STATE, Checkpointer
from lightweight.checkpointing.run_folder import FINISHED
from lightweight.checkpointing.session import Session, resumable
from lightweight.dataset import Dataset
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

EPOCHS, IMAGES, BATCH = 3, 40, 16  # three steps an epoch
STEPS = EPOCHS * 3
SWA = SwaParams(start=1, lr=0.01, anneal_epochs=1)


class Interruption(Exception):
    pass


class Dropping(nn.Module):
    """Convolution, BatchNorm, dropout and linear layer, in channels_last; `before` is called in every training step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3, stride=3), nn.BatchNorm2d(4), nn.Linear(4 * 16, 10)
        self.wide = nn.Conv2d(4, 4, 3, stride=2)  # whose weights lie in memory differently in channels_last
        self.dropout = nn.Dropout(0.5)
        self.before: Callable[[], None] = lambda: None

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.before()
        return self.fc(self.dropout(torch.relu(self.wide(self.norm(self.conv(images)))).flatten(1)))


class Inline:
    """An executor without a thread: what is written is written when it is submitted."""

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
def _at_every_step(monkeypatch):
    monkeypatch.setattr(resuming, "MAX_LOST_SECONDS", 0.0)


def model(seed: int = 0) -> Dropping:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Dropping().to(memory_format=torch.channels_last)


def run(
    data: Dataset, checkpointer: Checkpointer, stop: int | None = None, **changes
) -> tuple[dict[str, Tensor], History]:
    """Train, interrupted at the beginning of step `stop`; weights and history."""
    network, steps = model(), count(1)
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


def scratch(tmp_path: Path, log: Callable[[str], None] = lambda line: None) -> Checkpointer:
    return Checkpointer(tmp_path, "train", Inline(), log)


@pytest.fixture(scope="module")
def whole(data) -> Callable[..., tuple[dict[str, Tensor], list[Epoch]]]:
    """The weights and rows of a run with the changes that nothing interrupts, trained once."""
    known: dict[str, tuple] = {}

    def whole(**changes):
        key = json.dumps(changes)
        if key not in known:
            weights, history = run(data, Checkpointer(), **changes)
            known[key] = weights, history.rows
        return known[key]

    return whole


@pytest.mark.parametrize("stop", range(1, STEPS + 1))
def test_a_run_that_is_interrupted_at_any_step_ends_in_the_same_bits(tmp_path, data, whole, stop):
    with pytest.raises(Interruption):
        run(data, scratch(tmp_path), stop)
    weights, history = run(data, scratch(tmp_path))
    expected, rows = whole()
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
def test_it_does_so_with_every_optimizer_schedule_and_average(tmp_path, data, whole, changes):
    for stop in (2, 2, 3):  # the second run begins where the first ended, the third where the second
        with pytest.raises(Interruption):
            run(data, scratch(tmp_path), stop, **changes)
    weights, history = run(data, scratch(tmp_path), **changes)
    expected, rows = whole(**changes)
    assert not different(weights, expected)
    assert history.rows == rows


def test_no_more_than_the_interrupted_step_is_done_again(tmp_path, data, whole):
    for stop in (4, 3, 2):
        with pytest.raises(Interruption):
            run(data, scratch(tmp_path), stop)
    left = STEPS - 3 - 2 - 1
    with pytest.raises(Interruption):
        run(data, scratch(tmp_path), stop=left)
    weights, _ = run(data, scratch(tmp_path), stop=2)  # a single step is left
    assert not different(weights, whole()[0])


def test_a_run_that_is_done_is_not_done_again(tmp_path, data, whole):
    run(data, scratch(tmp_path), ema=0.9)
    weights, history = run(data, scratch(tmp_path), stop=1, ema=0.9)
    expected, rows = whole(ema=0.9)
    assert not different(weights, expected)
    assert history.rows == rows


def test_weight_averaging_goes_on_with_what_it_has_summed_up(tmp_path, data):
    def averaged(checkpointer: Checkpointer, stop: int | None) -> dict[str, Tensor]:
        network, steps = model(), count(1)
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
            averaged(scratch(folder), stop)
        assert not different(averaged(scratch(folder), None), expected), stop


PRUNINGS = [
    {"amount": 0.75, "layers": "conv"},
    {"schedule": "polynomial", "importance": "taylor", "scope": "global", "initial_sparsity": 0.2},
    {"schedule": "iterative", "method": "structured", "importance": "taylor"},
    {"schedule": "polynomial", "method": "structured", "importance": "random", "scope": "global"},
    {"amount": "auto", "max_drop": 0.5, "method": "structured", "trials": 2},
    {"amount": "auto", "target_parameters": 0.3, "images": 30},
]


@pytest.mark.parametrize("changes", PRUNINGS, ids=lambda changes: " ".join(map(str, changes.values())))
def test_pruning_that_is_interrupted_anywhere_ends_in_the_same_bits(tmp_path, data, changes):
    source, pruning = ModelFile(model(), "dropping", {}), prune_params(**changes)
    params = train_params(batch_size=BATCH, ema=0.5)

    def compressed(checkpointer: Checkpointer, stop: int | None) -> tuple[int, PruningResult]:
        instants = count(1)
        torch.manual_seed(99)

        def instant(*_) -> None:
            if next(instants) == stop:
                raise Interruption

        session = Session(data, 0, checkpointer=checkpointer)
        train_network = FineTune(session, params, 0.01, 1, None)

        def fine_tune(network: nn.Module, round_: int, each_step) -> Iterator[Epoch]:
            network.before = instant
            return train_network(network, round_, each_step)

        checkpointer.save_if_due, tick = lambda where: (tick(where), instant()), checkpointer.save_if_due
        result = Pruner(source, pruning, session, fine_tune).run()
        return next(instants), result

    instants, undisturbed = compressed(Checkpointer(), None)
    expected = undisturbed.model_file
    assert instants > STEPS / 2
    for stop in range(1, instants, 1 + instants // 12):
        folder = tmp_path / str(stop)
        folder.mkdir()
        with pytest.raises(Interruption):
            compressed(scratch(folder), stop)
        _, result = compressed(scratch(folder), None)
        pruned = result.model_file
        assert not different(state(pruned.model), state(expected.model)), stop
        assert pruned.shapes == expected.shapes
        assert result.probes == undisturbed.probes
        assert result.history.rows == undisturbed.history.rows


@pytest.mark.parametrize(
    ("stop", "where"), [(2, "epoch 1 of 3, batch 2 of 3"), (4, "epoch 2 of 3"), (9, "epoch 3 of 3, batch 3 of 3")]
)
def test_the_line_on_resumption_names_the_stage_the_epoch_and_the_batch(tmp_path, data, stop, where):
    with pytest.raises(Interruption):
        run(data, scratch(tmp_path), stop)
    said = []
    scratch(tmp_path, said.append)
    assert said == [f"resuming train at {where}"]


def test_probes_that_were_made_before_an_interruption_are_not_made_again(tmp_path, data, monkeypatch):
    def probes(until: int) -> tuple[list[str], list[dict]]:
        said: list[str] = []
        network, settled = model(), count(1)

        def reestimate(*_) -> None:
            if next(settled) == until:
                raise Interruption

        monkeypatch.setattr("lightweight.pruning.probe.reestimate_batchnorm", reestimate)
        checkpointer = Checkpointer(tmp_path, "sensitivity", Inline(), said.append)
        session, importance = Session(data, 0, checkpointer=checkpointer), Importance("l1", data, 30, 0)
        probe = SensitivityProbe(network, groups_of(network, prune_params(), data), session, importance, 30, 9)
        return said, scan_groups(probe, 0.5)

    with pytest.raises(Interruption):
        probes(until=3)
    said, rows = probes(until=3)  # of the dense model and two layers are known: one is left
    assert said == ["resuming sensitivity at probe 3"]
    assert len(rows) == 3


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[-100] ^= 4
    path.write_bytes(content[: len(content) // 2] if how == "truncated" else b"" if how == "empty" else content)


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty"])
@pytest.mark.parametrize("name", [STATE, "kept"])
def test_a_damaged_checkpoint_is_not_used_and_the_work_starts_over(tmp_path, data, whole, name, how):
    first = scratch(tmp_path)
    (tmp_path / "kept").write_bytes(bytes(200))
    first.add_file(tmp_path / "kept")
    with pytest.raises(Interruption):
        run(data, first, 5)
    damage(tmp_path / name, how)
    said = []
    weights, history = run(data, scratch(tmp_path, said.append))
    assert said == [f"train starts over: the checkpoint in {tmp_path} is damaged"]
    assert not different(weights, whole()[0])
    assert history.rows == whole()[1]


def test_a_vanished_file_of_the_checkpoint_is_damage(tmp_path, data):
    first = scratch(tmp_path)
    (tmp_path / "kept").write_bytes(bytes(200))
    first.add_file(tmp_path / "kept")
    with pytest.raises(Interruption):
        run(data, first, 5)
    (tmp_path / "kept").unlink()
    said = []
    scratch(tmp_path, said.append)
    assert said == [f"train starts over: the checkpoint in {tmp_path} is damaged"]


def test_a_forgotten_file_stays_until_no_checkpoint_counts_on_it(tmp_path):
    checkpointer = scratch(tmp_path)
    checkpointer.track("number", Number(1))
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        path.write_text("weights")
        checkpointer.add_file(path)
    checkpointer.save("here")
    checkpointer.remove_file(old)
    checkpointer.remove_file(old)
    assert old.exists()
    assert scratch(tmp_path).files.keys() == {"old", "new"}, "an interruption here still finds it"
    checkpointer.save("there")
    assert not old.exists()
    assert scratch(tmp_path).files.keys() == {"new"}
    checkpointer.export_files(tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["new"]


def test_kept_files_are_published_even_on_another_file_system(tmp_path, monkeypatch):
    checkpointer = scratch(tmp_path / "work")
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
    """Something with a state."""

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
    monkeypatch.setattr(resuming, "MAX_LOST_SECONDS", 20.0)
    return now


def written(checkpointer: Checkpointer, clock: SimpleNamespace, seconds: float, how: str = "save_if_due") -> bool:
    path = checkpointer.folder / STATE
    path.unlink(missing_ok=True)
    clock.seconds += seconds
    getattr(checkpointer, how)("here")
    return path.exists()


def test_small_steps_are_saved_every_twenty_seconds_and_large_ones_at_once(tmp_path, clock):
    checkpointer = scratch(tmp_path)
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
        real(*arguments)

    real = resuming.write_tensors
    monkeypatch.setattr(resuming, "write_tensors", slow)
    checkpointer = scratch(tmp_path)
    checkpointer.track("number", Number(1))
    assert written(checkpointer, clock, 1, "save")
    last = checkpointer.last
    while not written(checkpointer, clock, 0.25, "save"):
        pass
    assert checkpointer.last - last == pytest.approx(max(pause, cost), abs=0.5)


def test_work_goes_on_while_nothing_can_be_written_and_says_so(tmp_path, clock, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "not written: No space left on device", "state")

    said = []
    checkpointer = scratch(tmp_path, said.append)
    checkpointer.track("number", Number(1))
    with monkeypatch.context() as patch:
        patch.setattr(resuming, "write_tensors", full)
        assert not written(checkpointer, clock, 1, "save")
    assert written(checkpointer, clock, 30, "save")
    assert said == ["train cannot be resumed from here: state: not written: No space left on device"]


def test_any_state_of_dicts_lists_numbers_and_tensors_comes_back(tmp_path):
    value = {
        "int keys": {0: [1, 2.5], 1: None, "text": "größer"},
        "items": {"tensor": torch.arange(3), "items": [torch.tensor(1.5), True]},
        "float": 0.1 + 0.2,
        "inf": float("inf"),
        "strided": torch.arange(6.0).view(2, 3).T,
    }
    checkpointer = scratch(tmp_path)
    checkpointer.track("number", Number(value))
    checkpointer.save("here")
    found = scratch(tmp_path).track("number", Number()).value
    assert found.keys() == value.keys()
    assert found["int keys"] == value["int keys"]
    assert torch.equal(found["items"]["tensor"], torch.arange(3))
    assert found["items"]["items"][0].item() == 1.5
    assert found["items"]["items"][1] is True
    assert (found["float"], found["inf"]) == (value["float"], value["inf"])
    assert torch.equal(found["strided"], value["strided"])


def test_what_changes_after_a_checkpoint_is_not_in_it(tmp_path):
    tensor = torch.zeros(3)
    checkpointer = scratch(tmp_path)
    checkpointer.track("number", Number([tensor, tensor]))
    checkpointer.save("here")
    tensor += 1
    first, second = scratch(tmp_path).track("number", Number()).value
    assert torch.equal(first, torch.zeros(3))
    assert torch.equal(second, torch.zeros(3))


@pytest.fixture
def stage(tmp_path) -> Callable[..., list[str]]:
    """stage(value, lock): one run of a stage that counts to `value`; the lines that it says."""
    (tmp_path / "dvc.lock").write_text("old")

    def stage(value: int, fail: bool = False, params: object = 1, name: str = "train") -> list[str]:
        said: list[str] = []
        lock, output = tmp_path / "dvc.lock", tmp_path / "output"
        output.write_text(f"{value}")
        with resumable(
            tmp_path / "work", name, {"params": params}, [], output, log=said.append, lock=lock
        ) as checkpointer:
            number = checkpointer.track("number", Number(0))
            said.append(f"was {number.value}")
            number.value = value
            checkpointer.save("here")
            if fail:
                raise Interruption
        return said

    return stage


def folders(tmp_path: Path, name: str = "train") -> int:
    return len(list((tmp_path / "work" / name).iterdir()))


def test_a_failed_stage_is_resumed_and_one_that_dvc_has_stored_is_done_again(tmp_path, stage):
    with pytest.raises(Interruption):
        stage(1, fail=True)
    assert stage(2) == ["resuming train at here", "was 1"]
    assert stage(3) == ["resuming train at here", "was 2"], "DVC was interrupted before it wrote its lock file"
    (tmp_path / "dvc.lock").write_text("damaged")
    assert stage(4) == ["resuming train at here", "was 3"], "or while it wrote it"
    (tmp_path / "dvc.lock").write_text(hashlib.md5(b"4").hexdigest())
    assert stage(5) == ["was 0"]
    assert stage(6, params=2) == ["was 0"]


def test_finished_work_is_removed_when_another_stage_starts_and_interrupted_work_stays(tmp_path, stage):
    stage(1, params=1)
    with pytest.raises(Interruption):
        stage(1, fail=True, params=2)
    stage(1, params=3)
    assert folders(tmp_path) == 2
    stage(1, name="swa")
    assert folders(tmp_path) == 1
    assert stage(2, params=2) == ["resuming train at here", "was 1"]


def test_of_interrupted_work_the_two_newest_stay(tmp_path, stage):
    for number in range(5):
        with pytest.raises(Interruption):
            stage(number, fail=True, params=number)
    assert folders(tmp_path) == 3
    assert stage(9, params=4)[0] == "resuming train at here"
    assert stage(9, params=0) == ["was 0"]


def test_a_finished_folder_is_marked(tmp_path, stage):
    stage(1)
    (folder,) = (tmp_path / "work/train").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [FINISHED, STATE]


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b"[]", b'{"lock": 1}'])
def test_a_damaged_note_of_finished_work_stops_nothing(tmp_path, stage, content):
    stage(1)
    (folder,) = (tmp_path / "work/train").iterdir()
    (folder / FINISHED).write_bytes(content)
    assert stage(2) == ["resuming train at here", "was 1"]
