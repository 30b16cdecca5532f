"""A stage that runs elsewhere is compared file by file."""

import shutil
import sys

import pytest

from tests.workspace import copy_project
from tools.other_cpu import make_row


def test_a_row_counts_and_names_what_differs():
    expected = {"a": "1", "b": "2", "c": "3"}
    row = make_row("train", ["x=1", "y=2"], "Haswell", expected, {"a": "1", "b": "other"})
    assert row == {
        "stage": "train", "changes": "x=1 y=2", "cpu": "Haswell", "outputs": 3, "identical": 1, "differing": "b c",
    }  # fmt: skip


def test_bad_input_is_one_line(tmp_path):
    project = copy_project(tmp_path / "project")
    command = (sys.executable, "-m", "tools.other_cpu")
    assert "error: no stage 'nothing'; known are check" in project.run(*command, "nothing", code=1)
    output = project.run(*command, "check", code=1, PATH="/nowhere")
    assert output == "error: qemu-x86_64 is not installed; it is in Debian's package qemu-user\n"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="needs the emulator")
def test_an_emulated_haswell_prepares_the_same_bytes(tmp_path):
    project = copy_project(tmp_path / "project")
    project.stage("check")
    output = project.run(sys.executable, "-m", "tools.other_cpu", "prepare", "--cpu", "Haswell")
    assert output.count("2 of  2 identical") == 2
    assert "Haswell, emulated on" in (project.path / "comparisons/results/cpus.csv").read_text()
