"""The table of training steps says what its figures say, and which goals they miss."""

import sys

import pandas as pd
import pytest

from comparisons import processes_report
from comparisons.processes_report import BUSY, COLUMNS, DDP, ONE, QUIET, SETUPS, TWO
from tests.contract import ROOT
from tests.workspace import copy_project

ABOUT = {"cpu": "a CPU (avx2)", "cores": 2, "load": 0.03, "date": "2026-01-31", "torch": "2.13.0"}


def figures(rounds: int = 8, load: float = 0.03, **changes: float) -> pd.DataFrame:
    """Make up the figures of `cnn`: milliseconds of a setup and machine, growing from round to round for all alike."""
    times = {(QUIET, name): 100.0 for name in SETUPS} | {(BUSY, name): 150.0 for name in SETUPS}
    times |= {(QUIET, TWO): 60.0, (QUIET, DDP): 55.0}
    times |= {(QUIET if key == "quiet" else BUSY, TWO): value for key, value in changes.items()}
    rows = [
        {"network": "cnn", "machine": machine, "setup": setup, "round": number, "step_ms": own * number}
        for number in range(1, rounds + 1)
        for (machine, setup), own in times.items()
    ]
    return pd.DataFrame([row | ABOUT | {"load": load} for row in rows], columns=COLUMNS)


def test_ratios_are_of_the_same_round_with_their_interval():
    table = processes_report.compare(figures()).set_index(["network", "machine", "processes"])
    assert table.loc[("cnn", QUIET, TWO)].to_dict() == {
        "ms": "270.0",
        "times as fast as one": "1.67 [1.67, 1.67]",
        "time to DDP's": "1.09 [1.09, 1.09]",
        "time to quiet": "",
    }
    assert table.loc[("cnn", BUSY, TWO), "time to quiet"] == "2.50 [2.50, 2.50]"
    assert table.loc[("cnn", QUIET, ONE), "times as fast as one"] == ""
    assert list(table.index) == [("cnn", machine, name) for machine in (QUIET, BUSY) for name in SETUPS]


def test_few_rounds_have_no_interval():
    assert processes_report.compare(figures(rounds=3)).loc[1, "times as fast as one"] == "1.67"


@pytest.mark.parametrize(
    ("changes", "verdicts"),
    [
        ({}, ["yes", "no", "yes"]),
        ({"busy": 119.0}, ["yes", "yes", "yes"]),
        ({"quiet": 80.0}, ["no", "yes", "no"]),
    ],
)
def test_a_goal_that_is_missed_is_said_to_be_so_and_one_of_another_network_is_left_out(changes, verdicts):
    table = processes_report.judge(figures(**changes))
    assert list(table["reached"]) == verdicts
    assert set(table["network"]) == {"cnn"}
    assert list(table["goal"]) == ["at least 1.3", "at most 2.0", "at most 1.2"]


def test_figures_of_the_quiet_machine_alone_have_no_goal_of_the_busy_one():
    quiet = figures().query("machine == @QUIET")
    assert list(processes_report.judge(quiet)["goal"]) == ["at least 1.3", "at most 1.2"]


def test_the_table_says_whose_cpu_it_was_and_whether_others_used_it():
    text = processes_report.describe(figures())
    for value in ("2 cores of a CPU (avx2)", "2026-01-31", "PyTorch 2.13.0", "load before 0.03", "8 rounds"):
        assert value in text
    assert "a trial" not in text
    assert "a trial" in processes_report.describe(figures(load=2.5))


@pytest.mark.skipif(not (ROOT / processes_report.FIGURES).exists(), reason="not measured yet")
def test_the_table_is_generated_from_the_figures():
    measured = pd.read_csv(ROOT / processes_report.FIGURES)
    assert (ROOT / processes_report.TABLE).read_text() == processes_report.describe(measured)
    assert list(measured.columns) == COLUMNS


@pytest.mark.slow
def test_the_command_measures_every_setup_in_every_round(tmp_path):
    project = copy_project(tmp_path / "project")
    for kind in ("csv", "md"):
        (project.path / f"comparisons/results/processes.{kind}").unlink(missing_ok=True)
    chosen = ("--rounds", "2", "--network", "tiny", "--machine", "quiet")
    output = project.run(sys.executable, "-m", "comparisons.processes", *chosen)
    measured = pd.read_csv(project.path / processes_report.FIGURES)
    assert sorted(zip(measured["setup"], measured["round"], strict=True)) == sorted(
        (name, number) for name in SETUPS for number in (1, 2)
    )
    assert (measured["step_ms"] > 0).all()
    assert (project.path / processes_report.TABLE).read_text() in output
