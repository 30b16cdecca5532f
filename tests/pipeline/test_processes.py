"""One hash for any number of processes, also after a kill and a resumption by another number; bad input in one line."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightweight.data.dataset_file import save_dataset
from tests.workspace import QUICK_PRUNING, Workspace, copy_project

SMALL = (
    *QUICK_PRUNING,
    ("  network: cnn\n", "  network: tests.examples:bnnet\n"),
    ("  epochs: 10 ", "  epochs: 2 "),
    ("  shards: 1 ", "  shards: 4 "),
    ("  ema: 0.0 ", "  ema: 0.9 "),
    ("  clip_norm: 0.0 ", "  clip_norm: 1.0 "),
    ("  start: 5 ", "  start: 1 "),
    ("  max_logit_error: 0.1 ", "  max_logit_error: 9.0 "),
    ("  max_accuracy_drop: 0.01 ", "  max_accuracy_drop: 1.0 "),
    ("  schedule: one_shot ", "  schedule: polynomial "),
    ("  method: dynamic ", "  method: qat "),
    ("compact:\n  enabled: false ", "compact:\n  enabled: true "),
    ("  epochs: 12 ", "  epochs: 1 "),
)
STAGES = ("train", "swa", "prune", "sensitivity", "bn_update", "quantize", "compact", "evaluate")


def make_project(folder: Path, dataset, *changes: tuple[str, str]) -> Workspace:
    project = copy_project(folder / "project")
    project.set_params(*SMALL, *changes)
    save_dataset(project.path / "data/prepared.safetensors", dataset)
    return project


def hashes(project: Workspace) -> dict[str, str]:
    files = [path for name in ("models", "plots", "metrics") for path in (project.path / name).rglob("*.*")]
    return {str(path.relative_to(project.path)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_dataset) -> Workspace:
    """A small project after all stages, each computed by one process."""
    project = make_project(tmp_path_factory.mktemp("alone"), tiny_dataset)
    for name in STAGES:
        assert "processes" not in project.stage(name, LIGHTWEIGHT_PROCESSES="1")
    return project


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_artifact_of_every_stage_has_the_bytes_of_one_process(alone, tmp_path, tiny_dataset, processes):
    project = make_project(tmp_path, tiny_dataset)
    for name in STAGES:
        output = project.stage(name, LIGHTWEIGHT_PROCESSES=str(processes))
        assert output.startswith(f"{processes} processes of 1 thread\n")
    assert hashes(project) == hashes(alone)


@pytest.mark.slow
def test_without_exact_any_number_of_processes_trains_everything_to_other_bytes(alone, tmp_path, tiny_dataset):
    project = make_project(tmp_path, tiny_dataset, ("  exact: true ", "  exact: false "))
    for name in STAGES:
        output = project.stage(name, LIGHTWEIGHT_PROCESSES="3")
        assert output.startswith("3 processes of 1 thread\n"), "3 does not divide the shards"
    found, expected = hashes(project), hashes(alone)
    assert found.keys() == expected.keys()
    for name in ("original.safetensors", "averaged.safetensors", "pruned.safetensors", "optimized.onnx"):
        assert found[f"models/{name}"] != expected[f"models/{name}"]
    entries = json.loads((project.path / "metrics/optimized.json").read_text())
    assert entries["accuracy"] > 0.3


@pytest.mark.parametrize(
    "changes",
    [
        (("  method: unstructured     # unstructured: ", "  method: structured       # unstructured: "),),
        pytest.param(
            (
                ("  amount: 0.5 ", "  amount: auto "),
                ("  max_drop: null           # auto", "  max_drop: 0.3           # auto"),
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["structured", "auto"],
)
def test_pruning_has_the_bytes_of_one_process_by_other_methods_too(alone, tmp_path, tiny_dataset, changes):
    found = []
    for processes in ("1", "2"):
        project = make_project(
            tmp_path / processes, tiny_dataset, ("  schedule: polynomial ", "  schedule: iterative ")
        )
        project.set_params(*changes)
        for name in ("original", "averaged"):
            (project.path / "models").mkdir(exist_ok=True)
            content = (alone.path / f"models/{name}.safetensors").read_bytes()
            (project.path / f"models/{name}.safetensors").write_bytes(content)
        project.stage("prune", LIGHTWEIGHT_PROCESSES=processes)
        found.append(hashes(project))
    assert found[0] == found[1]


def start(project: Workspace, processes: int) -> subprocess.Popen:
    environment = project.environment | {"LIGHTWEIGHT_PROCESSES": str(processes)}
    command = [sys.executable, "-m", "stages.train"]
    return subprocess.Popen(
        command, cwd=project.path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_checkpoint(project: Workspace, process: subprocess.Popen) -> None:
    while not list((project.path / "work/train").rglob("state.safetensors")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)


@pytest.mark.parametrize(("before", "after"), [(1, 2), pytest.param(4, 1, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_goes_on_with_another_number_of_processes(alone, tmp_path, tiny_dataset, before, after):
    project = make_project(
        tmp_path,
        tiny_dataset,
    )
    process = start(project, before)
    wait_for_checkpoint(project, process)
    process.kill()
    process.communicate()
    output = project.stage("train", LIGHTWEIGHT_PROCESSES=str(after))
    assert "Resuming train at epoch" in output
    name = "models/original.safetensors"
    assert hashes(project)[name] == hashes(alone)[name]


def test_a_process_that_is_killed_is_replaced_and_the_bytes_are_the_same(alone, tmp_path, tiny_dataset):
    project = make_project(tmp_path, tiny_dataset)
    process = start(project, 2)
    wait_for_checkpoint(project, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert "Resuming train at epoch" in output
    name = "models/original.safetensors"
    assert hashes(project)[name] == hashes(alone)[name]


def test_no_process_outlives_the_one_that_started_it(tmp_path, tiny_dataset):
    project = make_project(tmp_path, tiny_dataset)
    process = start(project, 4)
    wait_for_checkpoint(project, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 4
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_processes_of_one_machine_listen_on_the_loopback_interface_only(tmp_path, tiny_dataset):
    project = make_project(tmp_path, tiny_dataset)
    process = start(project, 2)
    wait_for_checkpoint(project, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    sockets = set()
    for child in [str(process.pid), *children]:
        for link in Path(f"/proc/{child}/fd").iterdir():
            sockets |= set(re.findall(r"socket:\[(\d+)\]", str(link.readlink())))
    listening = []
    for table in ("tcp", "tcp6"):
        rows = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        listening += [row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets]
    process.kill()
    process.communicate()
    assert listening
    assert set(listening) == {"0100007F"}, "127.0.0.1, in the kernel's byte order"


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"PROCESSES": "8"}, "params.yaml: train.shards = 4: must be a multiple of the number of processes, 8"),
        ({"PROCESSES": "3"}, "params.yaml: train.shards = 4: must be a multiple of the number of processes, 3"),
        ({"NODES": "2"}, "environment: LIGHTWEIGHT_RENDEZVOUS = '': must be HOST:PORT of the first machine"),
        (
            {"PROCESSES": "1", "NODES": "2", "RENDEZVOUS": "127.0.0.1:1", "NODE_RANK": "1", "WAIT": "1"},
            "2 machines have not met at 127.0.0.1:1 within 1 seconds (LIGHTWEIGHT_WAIT): ",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(alone, variables, line):
    given = {f"LIGHTWEIGHT_{name}": value for name, value in variables.items()}
    output = alone.stage("train", code=1, **given)
    assert [text.startswith(f"error: {line}") for text in output.splitlines() if text.startswith("error: ")] == [True]
    assert "Traceback" not in output


def test_bad_input_is_told_once_and_not_tried_again(tmp_path, tiny_dataset):
    project = make_project(tmp_path, tiny_dataset, ("  freeze: [] ", "  freeze: [nothing] "))
    output = project.stage("train", code=1, LIGHTWEIGHT_PROCESSES="2")
    assert output.count("error:") == 1
    assert "error: params.yaml: train.freeze = 'nothing': names no part of the network" in output
    assert not (project.path / "models").exists()
