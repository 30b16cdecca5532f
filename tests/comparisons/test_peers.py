"""The comparison with other tools: its list, its scripts, failures of a tool, and what the page says of who wins."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from packaging.requirements import Requirement

from comparisons.peers import __main__ as peers
from comparisons.peers import report, running, trials
from comparisons.peers.features import FEATURES, describe_unmeasured
from comparisons.peers.report import COLUMNS
from comparisons.peers.trials import OURS, Trial, count_lines, list_trials, read_list
from comparisons.peers.versions import main_packages
from lightweight.core.errors import InputError
from lightweight.core.files import write_csv
from tests.contract import ROOT

SCRIPT = '''"""Docstring of the script,
over two lines."""

import sys  # a comment beside code

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime
# a comment alone


class Reader:
    """Docstring of a class."""

    text = """a value
    over two lines"""

    def read(self):
        return [
            1,
            2,
        ]
'''


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Make the script of a trial from its code, in place of those of the project."""
    monkeypatch.setattr(trials, "SCRIPTS", tmp_path)
    monkeypatch.chdir(ROOT)

    def make(code: str, **values: object) -> Trial:
        (tmp_path / "own.py").write_text(f"import sys\nfrom pathlib import Path\nresult = Path(sys.argv[2])\n{code}\n")
        return Trial("Tool", "method", "int8", running.OWN, "own", **values)

    return make


def run(trial: Trial, tmp_path: Path) -> running.Run:
    return running.run_script(trial, Path(sys.executable), tmp_path, tmp_path / "result")


def test_lines_of_code_are_counted_without_docstrings_comments_and_silencing(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    assert count_lines(path) == 9


def test_a_script_of_one_statement_has_one_line(tmp_path):
    path = tmp_path / "script.py"
    path.write_text('print("text")\n')
    assert count_lines(path) == 1


def test_every_trial_has_a_script_and_an_environment_of_exact_versions():
    listed = list_trials(ROOT / trials.LIST)
    assert listed[0].peer == OURS
    assert len({trial.key for trial in listed}) == len({trial.script for trial in listed}) == len(listed)
    for trial in listed:
        assert (ROOT / trial.path).exists(), trial.script
        requirements = ROOT / trials.REQUIREMENTS / f"{trial.environment}.txt"
        assert (trial.environment == running.OWN) == (trial.peer == OURS)
        assert (trial.environment == running.OWN) != requirements.exists(), trial.environment
    assert {path.stem for path in (ROOT / trials.SCRIPTS).glob("*.py")} - {"__init__"} == {t.script for t in listed}


@pytest.mark.parametrize("path", sorted((ROOT / trials.REQUIREMENTS).glob("*.txt")), ids=lambda path: path.stem)
def test_every_requirement_of_a_peer_is_one_exact_version(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"==[\w.]+", str(Requirement(line).specifier)), line
    assert main_packages(path)
    assert main_packages(path) == [line.partition("==")[0] for line in lines[: len(main_packages(path))]]


def test_one_file_of_ours_is_the_reference_of_each_task():
    listed = list_trials(ROOT / trials.LIST)
    for task in {trial.task for trial in listed} - {"lossless"}:
        assert [trial.peer for trial in listed if trial.reference and trial.task == task] == [OURS], task


@pytest.mark.parametrize(
    ("line", "message"),
    [("task = 'int3'", "Tool: task = 'int3': must be one of int8"), ("taks = 'int8'", "Tool: .*taks")],
)
def test_a_mistake_in_the_list_is_named(tmp_path, line, message):
    path = tmp_path / "peers.toml"
    trial = f"[[peer.trial]]\nmethod = 'm'\nscript = 's'\n{line}\n" + ("task = 'int8'\n" if "taks" in line else "")
    path.write_text(f"[[peer]]\nname = 'Tool'\nenvironment = 'e'\n{trial}")
    with pytest.raises(InputError, match=message):
        list_trials(path)


def test_a_script_that_leaves_its_file_has_no_error_and_a_hash_of_what_it_left(script, tmp_path):
    first = run(script('(result / "compressed.onnx").write_text("a")'), tmp_path)
    same = run(script('(result / "compressed.onnx").write_text("a")\n(result / "other.txt").write_text("b")'), tmp_path)
    other = run(script('(result / "compressed.onnx").write_text("b")'), tmp_path)
    beside = run(script('[(result / f"compressed.{s}").write_text("a") for s in ("onnx", "bin")]'), tmp_path)
    assert first.error == ""
    assert first.digest == same.digest
    assert len({first.digest, other.digest, beside.digest}) == 3


def test_a_script_that_fails_is_told_in_the_words_of_its_error(script, tmp_path):
    assert run(script('raise RuntimeError("no kernel")'), tmp_path).error == "RuntimeError: no kernel"
    assert run(script("sys.exit(3)"), tmp_path).error == "ended with exit code 3"
    assert run(script(""), tmp_path).error == "left no compressed.onnx"


def test_a_script_that_takes_too_long_is_ended_after_its_cpu_seconds(script, tmp_path):
    found = run(script("while True: pass", cpu_seconds=1), tmp_path)
    assert found.error == "not done after 1 CPU seconds"
    assert 0.5 < found.cpu_seconds < 3


def test_a_script_sees_no_telemetry_and_the_project(script, tmp_path, monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    code = 'import os, lightweight\n(result / "compressed.onnx").write_text(os.environ["ORT_DISABLE_TELEMETRY"])'
    assert run(script(code), tmp_path).error == ""
    assert (tmp_path / "result/compressed.onnx").read_text() == "1"


@pytest.mark.parametrize(("code", "same"), [("1", "yes"), ("os.getpid()", "no")])
def test_two_runs_tell_whether_a_tool_leaves_the_same_bytes(script, tmp_path, code, same):
    row = peers.make_file(script(f'import os\n(result / "compressed.onnx").write_text(str({code}))'), tmp_path)
    assert (row["error"], row["same_bytes"]) == ("", same)


@pytest.mark.slow
def test_requirements_that_cannot_be_installed_are_told_and_leave_no_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(running, "ENVIRONMENTS", tmp_path / "environments")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "tool.txt").write_text("no-such-tool==1.0\n")
    for _ in range(2):
        with pytest.raises(InputError, match=r"tool\.txt: cannot be installed: ERROR: .*no-such-tool==1\.0"):
            running.python_of("tool")
    assert not (tmp_path / "environments/tool/installed").exists()


def test_an_environment_is_made_anew_when_its_requirements_have_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(running, "ENVIRONMENTS", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "tool/bin").mkdir(parents=True)
    for path in (tmp_path / "tool.txt", tmp_path / "tool/installed"):
        path.write_text("no-such-tool==1.0\n")
    assert running.python_of("tool") == tmp_path / "tool/bin/python"
    (tmp_path / "tool.txt").write_text("no-such-tool==1.1\n")
    with pytest.raises(InputError, match=r"no-such-tool==1\.1"):
        running.python_of("tool")


def test_pairs_are_counted_image_by_image():
    ours, theirs = np.array([1, 1, 1, 0, 0], dtype=bool), np.array([1, 0, 0, 1, 0], dtype=bool)
    assert peers.pair(ours, theirs) == {"only_ours": 2, "only_theirs": 1, "ours_p": 1.0}


def row(peer: str = "Tool", **values: object) -> dict[str, object]:
    known: dict[str, object] = {
        "network": "resnet20", "task": "int8", "peer": peer, "method": "static", "accuracy": 0.87, "accuracy_low": 0.86,
        "accuracy_high": 0.88, "exact_accuracy": 0.875, "images": 2000, "gained": 1, "lost": 2, "mcnemar_p": 0.5,
        "size_bytes": 300, "original_bytes": 1000, "macs": 10, "original_macs": 10, "int8_mac_share": 1.0, "lines": 20,
        "runtime": "ONNX Runtime", "seconds": 9, "cpu_seconds": 8, "same_bytes": "yes", "versions": "tool 1.0",
        "calibration_images": 512, "cpu": "a CPU (avx2)", "load": 0.1, "date": "2026-11-28",
    }  # fmt: skip
    return dict.fromkeys(COLUMNS) | known | values


def describe(*rows: dict[str, object], times: pd.DataFrame | None = None) -> str:
    listed = {"peer": [{"name": "Tool", "features": {"int4": "yes"}, "evidence": "its code", "could_not": ["fly"]}]}
    listed["reasons"] = {"int8": {"accuracy": {"Tool": "It trains."}, "lines": {"any": "One call."}}}
    figures = pd.DataFrame(rows, columns=COLUMNS)
    figures = figures.astype({"error": object, "same_bytes": object, "versions": object})
    return report.describe(figures, times, listed)


WON = {"accuracy": 0.89, "only_ours": 5, "only_theirs": 45, "ours_p": 1e-8}


def test_a_tool_that_is_better_by_more_than_chance_is_said_to_win_with_the_reason():
    text = describe(row(OURS), row(**WON))
    assert "ours 87.00%: +2.00 points, p 1e-08, Tool wins. It trains." in text
    assert "| +45 -5, p 1e-08 |" in text


@pytest.mark.parametrize("values", [{"ours_p": 0.3}, {"accuracy": 0.85, "only_ours": 45, "only_theirs": 5}])
def test_a_tool_that_is_not_better_or_by_chance_alone_does_not_win(values):
    text = describe(row(OURS), row(**WON | values))
    assert "Tool wins. It trains." not in text
    assert "It trains." not in text
    assert ("no difference that is not chance" if "ours_p" in values else "ours wins.") in text


def test_fewer_lines_win_and_more_do_not():
    assert "Lines: Tool (static) has 9 lines, ours 20 lines. Tool wins. One call." in describe(row(OURS), row(lines=9))
    assert "One call." not in describe(row(OURS), row(lines=21))


def test_speed_is_compared_where_it_was_timed():
    columns = {"network": "resnet20", "task": "int8", "method": "static", "runtime": "OpenVINO", "batch": 1}
    timed = [
        columns | {"peer": peer, "speedup": middle, "speedup_low": middle - 0.1, "speedup_high": middle + 0.1}
        for peer, middle in ((OURS, 2.0), ("Tool", 2.5))
    ]
    text = describe(row(OURS), row(**WON), times=pd.DataFrame(timed))
    assert re.search(r"\| +2\.50 \[2\.40, 2\.60\] \|", text)
    assert (
        "Speed in OpenVINO, batch 1: Tool (static) is 2.50 times as fast as float32, ours 2.00 times. Tool wins."
        in text
    )


def test_failures_limits_features_and_versions_are_on_the_page():
    failed = row(method="qat", error="ImportError: no | wheel", accuracy=None, images=None, same_bytes=None)
    text = describe(row(OURS), row(**WON), row(**WON | {"method": "b", "same_bytes": "no"}), failed)
    assert re.search(r"\| resnet20 +\| +Tool \| +qat \| +ImportError: no / wheel \|", text)
    assert "- Tool: fly" in text
    assert re.search(r"\| Tool +\|.* yes \|.* 1 of 2 \|", text)
    assert "- Tool: its code" in text
    assert "- Tool: tool 1.0, 2026-11-28" in text
    assert "2,000" in text


def test_a_busy_machine_is_said_to_have_been_one():
    assert "other work" not in describe(row(OURS), row(**WON))
    assert "other work" in describe(row(OURS), row(**WON, load=2.0))


def test_every_cell_of_the_feature_table_is_filled_and_of_a_peer_that_says_what_it_rests_on():
    for peer in read_list(ROOT / trials.LIST)["peer"]:
        assert peer["features"].keys() == FEATURES.keys(), peer["name"]
        assert peer["evidence"], peer["name"]
        assert peer["licence"], peer["name"]
        assert re.fullmatch(r"20\d\d-\d\d-\d\d|this commit|not in the package", peer["released"]), peer["name"]


def test_what_is_measured_is_not_measured_again(tmp_path, monkeypatch, script, tiny_dataset):
    figures = tmp_path / "peers.csv"
    write_csv(figures, COLUMNS, [row(peer="Tool", method="method")])
    monkeypatch.setattr(peers, "FIGURES", figures)
    monkeypatch.setattr(peers, "evaluate", lambda *given: (None, None))
    before = figures.read_bytes()
    peers.measure("resnet20", [script("raise RuntimeError")], tiny_dataset, tmp_path)
    assert figures.read_bytes() == before
    peers.measure("cnn", [script("raise RuntimeError('no kernel')")], tiny_dataset, tmp_path)
    assert "cnn,int8,Tool,method,RuntimeError: no kernel," in figures.read_text()
    assert figures.read_text().startswith(before.decode())


@pytest.mark.skipif(not (ROOT / report.FIGURES).exists(), reason="not measured yet")
def test_the_page_is_generated_from_the_figures():
    times = pd.read_csv(ROOT / report.TIMES) if (ROOT / report.TIMES).exists() else None
    text = report.describe(pd.read_csv(ROOT / report.FIGURES), times, read_list(ROOT / trials.LIST))
    assert (ROOT / report.TABLE).read_text() == text


def test_the_processes_of_tools_inherit_no_variables_of_the_library(script, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTWEIGHT_PROCESSES", "2")
    code = 'import os\n(result / "compressed.onnx").write_text(str("LIGHTWEIGHT_PROCESSES" in os.environ))'
    run(script(code), tmp_path)
    assert (tmp_path / "result/compressed.onnx").read_text() == "False"
    assert os.environ["LIGHTWEIGHT_PROCESSES"] == "2"


def test_the_page_says_which_tools_were_not_measured():
    figures = pd.DataFrame({"peer": ["One"]})
    peers = {"peer": [{"name": name} for name in ("One", "Two", "Three")]}
    assert "Not measured here yet: Two, Three; what" in describe_unmeasured(figures, peers)
    assert describe_unmeasured(figures, {"peer": [{"name": "One"}]}) == ""
