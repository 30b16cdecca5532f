"""Several machines, each with its own clone: network namespaces that are joined by a cable."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lightweight.data.dataset_file import save_dataset
from tests.pipeline.test_processes import SMALL
from tests.workspace import Workspace, copy_project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("ip") or os.geteuid() != 0, reason="namespaces need `ip` and root"),
]
VARIABLES = {
    "LIGHTWEIGHT_NODES": "2",
    "LIGHTWEIGHT_PROCESSES": "2",
    "LIGHTWEIGHT_RENDEZVOUS": "10.77.0.1:29400",
    "LIGHTWEIGHT_WAIT": "60",
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
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def start(project: Workspace, machine: str, node: int, stage: str) -> subprocess.Popen:
    environment = project.environment | VARIABLES | {"LIGHTWEIGHT_NODE_RANK": str(node)}
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
