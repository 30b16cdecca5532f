"""Several machines, each with its own clone: network namespaces that are joined by a cable."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightweight.data.dataset_file import save_dataset
from lightweight.execution.watch import describe_absence
from tests.contract import ROOT
from tests.pipeline.test_processes import SMALL, make_project, wait_for_checkpoint
from tests.workspace import Workspace, copy_project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("ip") or os.geteuid() != 0, reason="namespaces need `ip` and root"),
]
WAIT = 60
HOSTS = ("10.77.0.1", "10.77.0.2")
MODEL = Path("models/original.safetensors")
VARIABLES = {
    "LIGHTWEIGHT_NODES": "2",
    "LIGHTWEIGHT_PROCESSES": "2",
    "LIGHTWEIGHT_RENDEZVOUS": "10.77.0.1:29400",
    "LIGHTWEIGHT_WAIT": str(WAIT),
}


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    names = (f"lw{os.getpid()}a", f"lw{os.getpid()}b")
    commands = [f"netns add {name}" for name in names]
    commands.append(f"link add lwa netns {names[0]} type veth peer name lwb netns {names[1]}")
    for name, end, host in zip(names, "ab", (1, 2), strict=True):
        commands += [f"-n {name} addr add 10.77.0.{host}/24 dev lw{end}", f"-n {name} link set lw{end} up"]
        commands.append(f"-n {name} link set lo up")
    try:
        for command in commands:
            if subprocess.run(["ip", *command.split()], capture_output=True, check=False).returncode:
                pytest.skip("this machine allows no network namespaces")
        yield names
    finally:
        for name in names:
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
            for process in pids.split():
                os.kill(int(process), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def start(project: Workspace, machine: str, node: int, stage: str, **variables: str) -> subprocess.Popen:
    environment = project.environment | VARIABLES | {"LIGHTWEIGHT_NODE_RANK": str(node)} | variables
    command = ["ip", "netns", "exec", machine, sys.executable, "-m", f"stages.{stage}"]
    return subprocess.Popen(
        command, cwd=project.path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_two_machines_end_in_the_bytes_of_one_process_and_one_that_differs_is_refused(machines, tmp_path, tiny_dataset):
    projects = [copy_project(tmp_path / name / "project") for name in ("a", "b", "alone")]
    for project in projects:
        project.set_params(*SMALL)
        save_dataset(project.path / "data/prepared.safetensors", tiny_dataset)
    for stage in ("train", "swa"):
        running = [start(projects[node], machines[node], node, stage) for node in (0, 1)]
        outputs = [process.communicate(timeout=200)[0] for process in running]
        assert [process.returncode for process in running] == [0, 0], outputs
        assert "2 processes of 1 thread on each of 2 machines" in outputs[0]
        projects[2].stage(stage, LIGHTWEIGHT_PROCESSES="1")
    for name in ("original", "averaged"):
        contents = [(project.path / f"models/{name}.safetensors").read_bytes() for project in projects]
        assert len({hashlib.md5(content).hexdigest() for content in contents}) == 1
    projects[1].set_params(("  lr: 0.003                # constant", "  lr: 0.004                # constant"))
    running = [start(projects[node], machines[node], node, "swa") for node in (0, 1)]
    outputs = [process.communicate(timeout=400)[0] for process in running]
    assert all(process.returncode == 1 for process in running)
    assert any("params.yaml: swa = " in output and "all machines must compute the same" in output for output in outputs)


LONG = ("  epochs: 2 ", "  epochs: 20 ")  # long enough for what happens in the middle


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_dataset) -> bytes:
    """The weights of a training that nothing has interrupted, by one process."""
    project = make_project(tmp_path_factory.mktemp("undisturbed"), tiny_dataset, LONG)
    project.stage("train", LIGHTWEIGHT_PROCESSES="1")
    return (project.path / MODEL).read_bytes()


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


def kill_machine(name: str) -> None:
    for process in ip("netns", "pids", name).split():
        os.kill(int(process), signal.SIGKILL)


def cut_cable(name: str) -> None:
    """Take the network from a machine: nothing comes, not even the end of a connection."""
    ip("-n", name, "link", "set", f"lw{name[-1]}", "down")


def mend_cable(name: str) -> None:
    ip("-n", name, "link", "set", f"lw{name[-1]}", "up")


def last_words(process: subprocess.Popen) -> str:
    """The last line of a stage that ends in time, by an error in one line."""
    output, _ = process.communicate(timeout=WAIT + 60)
    assert process.returncode == 1, output
    assert output.count("error:") == 1, output
    assert not any(word in output for word in ("Traceback", "Exception", "warning:", "[W")), output
    return output.splitlines()[-1]


@pytest.mark.parametrize(
    ("fault", "gone", "alone"),
    [(kill_machine, 1, True), (kill_machine, 0, False), (cut_cable, 1, False), (cut_cable, 0, True)],
)
def test_a_machine_goes_away_the_others_say_which_and_go_on_to_the_bytes_of_an_undisturbed_run(
    machines, tmp_path, tiny_dataset, undisturbed, fault, gone, alone
):
    projects = [make_project(tmp_path / name, tiny_dataset, LONG) for name in "ab"]
    running = [start(projects[node], machines[node], node, "train") for node in (0, 1)]
    for project, process in zip(projects, running, strict=True):
        wait_for_checkpoint(project, process)
    fault(machines[gone])
    assert last_words(running[1 - gone]) == f"error: {describe_absence(gone, HOSTS[gone])}"
    if fault is cut_cable:  # the machine without a network says that the other one has gone away
        assert last_words(running[gone]) == f"error: {describe_absence(1 - gone, HOSTS[1 - gone])}"
        mend_cable(machines[gone])
    running[gone].communicate()
    assert [ip("netns", "pids", name) for name in machines] == ["", ""], "nobody is left"
    assert not (projects[1 - gone].path / "models").exists()
    if alone:
        output = projects[1 - gone].stage("train", LIGHTWEIGHT_PROCESSES="1")
    else:
        running = [start(projects[node], machines[node], node, "train") for node in (0, 1)]
        output = "".join(process.communicate(timeout=200)[0] for process in running)
    assert "Resuming train at epoch" in output
    assert (projects[1 - gone].path / MODEL).read_bytes() == undisturbed


def test_a_machine_that_does_not_come_is_waited_for_so_long_and_no_longer(machines, tmp_path, tiny_dataset):
    project = make_project(tmp_path, tiny_dataset)
    for node in (0, 1):
        line = last_words(start(project, machines[node], node, "train", LIGHTWEIGHT_WAIT="10"))
        assert line.startswith("error: 2 machines have not met at 10.77.0.1:29400 within 10 seconds (LIGHTWEIGHT_WAIT)")


SKEWED = """
import datetime, os, sys
from pathlib import Path
import torch.distributed.elastic.rendezvous.dynamic_rendezvous as rendezvous
from lightweight.execution.launch import _run_agent
from lightweight.execution.machines import read_machines

class Clock(datetime.datetime):
    @classmethod
    def now(cls, zone=None):
        return datetime.datetime.now(zone) - datetime.timedelta(minutes=int(os.environ["LIGHTWEIGHT_NODE_RANK"]))

rendezvous.datetime = Clock
_run_agent(lambda: print("computed", flush=True), Path("params.yaml"), read_machines(1, 2))
"""


def test_machines_compute_together_whose_clocks_differ_by_a_minute(machines):
    variables = os.environ | VARIABLES | {"LIGHTWEIGHT_PROCESSES": "1"}
    running = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, "-c", SKEWED],
            cwd=ROOT,
            env=variables | {"LIGHTWEIGHT_NODE_RANK": str(node)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for node, name in enumerate(machines)
    ]
    assert [process.communicate(timeout=200)[0] for process in running] == ["computed\n"] * 2
