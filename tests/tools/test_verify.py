"""`make verify` tells identical bytes from bytes of another machine, and both from everything that is wrong."""

import copy
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lightweight.reporting.provenance import describe_origin
from tests.contract import ROOT
from tests.examples import made_up_metrics, write_scores
from tests.workspace import Workspace, commit_all, copy_project
from tools.verify import fresh_clone
from tools.verify.integrity import repair_command
from tools.verify.verdict import ELSEWHERE, FAILED, IDENTICAL, Run, Verdict, judge

HERE = {"commit": "c0ffee", "changed": [], "python": "3.11.7", "platform": "Linux x86_64", "cpu": "This", "threads": 2}
HERE["versions"] = {"torch": "2.13.0", "numpy": "2.4.6"}
THERE = HERE | {"cpu": "Another"}
SCORES = {
    "accuracy": 0.97, "accuracy_low": 0.95, "accuracy_high": 0.99, "images": 450, "gained": 0, "lost": 0,
    "mcnemar_p": 1.0, "size_bytes": 1000, "compressed_bytes": 900, "parameters": 1000, "nonzero_parameters": 900,
    "macs": 5000, "int8_mac_share": 0.5,
}  # fmt: skip
TABLE = "plots/models.csv"
STAGES = {"prepare": ("data", []), "train": ("model", ["data"]), "prune": ("small", ["model"])}


def run_of(**md5: str) -> Run:
    """Make the run of prepare, train, prune and evaluate; outputs have these MD5s, or their name as MD5."""
    stages = STAGES | {"evaluate": (TABLE, ["small"])}
    lock = {
        name: {
            "cmd": f"python -m stages.{name}",
            "deps": [{"path": f"stages/{name}.py", "md5": "code"}, *({"path": dep, "md5": "any"} for dep in deps)],
            "params": {"params.yaml": {name: 1}},
            "outs": [{"path": out, "md5": md5.get(out, out)}],
        }
        for name, (out, deps) in stages.items()
    }
    return Run(lock, {"optimized": SCORES})


def record(entry: dict, **others: dict) -> dict:
    return {path: {"md5": path, **others.get(path, entry)} for path in ("data", "model", "small", TABLE)}


def judged(ours: Run, known: dict, committed: Run | None = None) -> Verdict:
    return judge(committed or run_of(), ours, known, HERE, faults=[])


def test_the_same_lock_is_identical_whoever_made_it():
    for known in ({}, record(HERE), record(THERE)):
        assert judged(run_of(), known).code == IDENTICAL
    assert judged(run_of(), {}).lines[1].split() == ["train", "model", "identical"]


@pytest.mark.parametrize("maker", [{"cpu": "Another"}, {"threads": 1}])
def test_other_bytes_on_another_processor_or_thread_count_are_said_to_be_so(maker):
    verdict = judged(run_of(model="x", small="x"), record(HERE | maker))
    assert verdict.code == ELSEWHERE
    assert [line.split()[2] for line in verdict.lines] == ["identical", "differs", "differs", "identical"]
    assert "2 of 4 outputs differ on This with 2 threads from those of" in verdict.words


def test_other_bytes_on_the_same_processor_and_thread_count_are_a_fault():
    verdict = judged(run_of(model="x", small="x"), record(HERE))
    assert verdict.code == FAILED
    faults = [line for line in verdict.lines if "fault:" in line]
    assert faults == ["  fault: model: made on the same type of processor and thread count, and the same versions"]


def test_other_versions_on_the_same_processor_are_a_fault_that_names_them():
    verdict = judged(run_of(model="x"), record(HERE | {"python": "3.12.0", "versions": {"torch": "2.14.0"}}))
    assert verdict.code == FAILED
    assert verdict.lines[-1].endswith("python was 3.12.0 and is 3.11.7; torch was 2.14.0 and is 2.13.0; "
                                    "numpy was None and is 2.4.6")  # fmt: skip


def test_other_versions_on_another_processor_are_named():
    verdict = judged(run_of(model="x"), record(THERE | {"versions": HERE["versions"] | {"torch": "2.14.0"}}))
    assert verdict.code == ELSEWHERE
    assert verdict.lines[-1] == "  beside that, torch was 2.14.0 and is 2.13.0"


def test_what_counts_is_who_made_the_first_output_that_differs():
    known = record(HERE, model=THERE)  # what follows was made here, from the model of another machine
    assert judged(run_of(model="x", small="x"), known).code == ELSEWHERE
    assert judged(run_of(small="x"), known).code == FAILED
    assert judged(run_of(data="x", model="x", small="x"), known).code == FAILED


@pytest.mark.parametrize("known", [{}, record(THERE, model={**THERE, "md5": "of another model"}), {"model": {}}])
def test_other_bytes_of_an_unknown_machine_are_a_fault(known):
    verdict = judged(run_of(model="x", small="x"), known)
    assert verdict.code == FAILED
    assert (
        verdict.lines[-1]
        == "  fault: train: metrics/provenance.json does not say where the committed outputs were made"
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"accuracy_low": 0.94, "accuracy_high": 0.951}, ELSEWHERE),
        ({"accuracy_low": 0.93, "accuracy_high": 0.949}, FAILED),
        ({"accuracy_low": 0.991, "accuracy_high": 1.0}, FAILED),
        ({"gained": 3, "mcnemar_p": 0.25}, ELSEWHERE),
        ({"size_bytes": 1010, "compressed_bytes": 891, "nonzero_parameters": 909}, ELSEWHERE),
        ({"size_bytes": 1011}, FAILED),
        ({"int8_mac_share": 0.0}, FAILED),
        ({"parameters": 1001}, FAILED),
        ({"macs": 4999}, FAILED),
        ({"images": 451}, FAILED),
    ],
)
def test_metrics_agree_where_intervals_overlap_counts_are_equal_and_sizes_within_a_percent(change, code):
    ours = run_of(model="x", small="x", **{TABLE: "x"})._replace(scores={"optimized": SCORES | change})
    verdict = judged(ours, record(THERE))
    assert verdict.code == code
    assert any(line.startswith("  fault: optimized: ") for line in verdict.lines) == (code == FAILED)


def test_a_lock_of_other_code_parameters_or_stages_is_a_fault_on_every_machine():
    for changed in ("code", "params", "stage"):
        committed = copy.deepcopy(run_of())
        if changed == "code":
            committed.lock["train"]["deps"][0]["md5"] = "older"
        elif changed == "params":
            committed.lock["train"]["params"] = {"params.yaml": {"train": 2}}
        else:
            del committed.lock["train"]
        for ours in (run_of(), run_of(model="x")):
            verdict = judged(ours, record(THERE), committed)
            assert verdict.code == FAILED
            assert any("dvc.lock is of another command, code or parameters in train" in line for line in verdict.lines)


def test_an_output_that_is_not_made_is_a_fault_on_any_processor():
    ours = run_of()
    name, stage = next((name, stage) for name, stage in ours.lock.items() if len(stage["outs"]) == 1)
    lock = ours.lock | {name: stage | {"outs": []}}
    verdict = judged(ours._replace(lock=lock), record(THERE))
    assert verdict.code == FAILED
    assert any(line.endswith(": not made") for line in verdict.lines)


def test_a_variant_that_is_not_scored_is_a_fault():
    verdict = judged(run_of()._replace(scores={}), record(THERE))
    assert (verdict.code, verdict.lines[-1]) == (FAILED, "  fault: optimized: not scored")


TOY = """
stages:
  make:
    cmd: python make.py
    deps: [make.py]
    params: [threads]
    outs:
      - models
      - model
  evaluate:
    cmd: cp scores.csv plots/models.csv
    deps: [model, scores.csv]
    plots:
      - plots/models.csv:
          cache: false
"""
MAKE = """
import os, sys, time
from pathlib import Path
print("making", Path.cwd(), flush=True)
time.sleep(float(os.environ.get("TOY_SLEEP", 0)))
Path("models").mkdir()
Path("models/1").write_text("first")
Path("model").write_text(os.environ.get("TOY", "weights"))
sys.exit(int(os.environ.get("TOY_FAILS", 0)))
"""
IGNORED = "/model\n/models/\n/work/\n"


@pytest.fixture(scope="module")
def committed(tmp_path_factory) -> Workspace:
    """Make a pipeline of two stages, run here and committed with its lock and record."""
    toy = Workspace(tmp_path_factory.mktemp("toy") / "project")
    (toy.path / "metrics").mkdir(parents=True)
    (toy.path / "plots").mkdir()
    write_scores(toy.path / "scores.csv", made_up_metrics())
    texts = {"dvc.yaml": TOY, "make.py": MAKE, "params.yaml": "threads: 1\n", ".gitignore": IGNORED}
    for name, text in texts.items():
        (toy.path / name).write_text(text)
    commit_all(toy)
    toy.run("dvc", "init", "--quiet")
    toy.run("dvc", "repro")
    outs = YAML(typ="safe").load(toy.path / "dvc.lock")["stages"]["make"]["outs"]
    entries = {out["path"]: {"md5": out["md5"], **describe_origin(1)} for out in outs}
    (toy.path / "metrics/provenance.json").write_text(json.dumps(entries))
    commit(toy, "results")
    return toy


@pytest.fixture
def toy(committed, tmp_path) -> Workspace:
    shutil.copytree(committed.path, tmp_path / "project")
    return Workspace(tmp_path / "project")


def commit(workspace: Workspace, message: str) -> None:
    workspace.run("git", "add", ".")
    workspace.run("git", "commit", "--quiet", "-m", message)


def verified(workspace: Workspace, code: int, **environment: str) -> list[str]:
    """Verify the workspace and return the printed lines; nothing may stay in the folder for temporary files."""
    temporary = workspace.path.parent / "temporary"
    temporary.mkdir(exist_ok=True)
    own = {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)} | environment
    lines = workspace.run(sys.executable, "-m", "tools.verify.fresh_clone", code=code, **own).splitlines()
    assert list(temporary.iterdir()) == []
    return lines


def log(workspace: Workspace) -> Path:
    return workspace.path / fresh_clone.LOG


def test_a_clone_that_makes_the_same_bytes_is_identical_and_leaves_nothing(toy):
    lines = verified(toy, IDENTICAL)
    head = toy.run("git", "rev-parse", "HEAD")[:9]
    assert lines[0] == "Workspace: 3 outputs and 4 objects in the cache, 0 damaged"
    assert [line.split() for line in lines[1:4]] == [
        ["make", "model", "identical"],
        ["make", "models", "identical"],
        ["evaluate", "plots/models.csv", "identical"],
    ]
    assert lines[-1] == f"IDENTICAL: all 3 outputs, made anew byte for byte (a fresh clone of {head})"
    assert not log(toy).exists()
    assert not toy.run("git", "status", "--porcelain")


def test_head_is_verified_and_not_what_is_uncommitted_cached_or_configured(toy, tmp_path):
    (toy.path / "make.py").write_text("raise SystemExit(1)\n")
    (tmp_path / "config").write_text("[core]\n    remote = nowhere\n[cache]\n    dir = nowhere\n")
    lines = verified(toy, IDENTICAL, DVC_SYSTEM_CONFIG_DIR=str(tmp_path), GIT_DIR=str(toy.path / ".git"))
    assert lines[0].startswith("The workspace has changes that are not committed; what is verified is HEAD, ")


def test_other_bytes_are_a_fault_here_and_none_on_another_processor(toy):
    lines = verified(toy, FAILED, TOY="others")
    assert "  fault: model: made on the same type of processor and thread count, and the same versions" in lines
    assert lines[-1].startswith("NOT REPRODUCED: 1 of 3 outputs differ, 1 fault is named above")
    assert str(log(toy)) in lines[-1]
    assert "making" in log(toy).read_text()
    path = toy.path / fresh_clone.RECORD
    entries = json.loads(path.read_text())
    path.write_text(json.dumps({name: entry | {"cpu": "Another"} for name, entry in entries.items()}))
    commit(toy, "made elsewhere")
    assert verified(toy, ELSEWHERE, TOY="others")[-1].startswith("OTHER BYTES, SAME RESULTS: 1 of 3 outputs differ on ")
    assert not log(toy).exists()


def test_a_run_that_fails_shows_its_last_lines_and_keeps_them(toy):
    lines = verified(toy, FAILED, TOY_FAILS="7")
    assert any("failed to reproduce 'make'" in line for line in lines)
    assert lines[-1].startswith("FAILED: `dvc repro` ended with exit code ")
    assert "exited with 7" in log(toy).read_text()


def test_a_committed_metric_that_its_lock_does_not_name_is_a_fault(toy):
    better = made_up_metrics()
    better["optimized"]["accuracy"] += 0.01
    write_scores(toy.path / "plots/models.csv", better)
    commit(toy, "embellished")
    lines = verified(toy, FAILED)
    fault = "  fault: plots/models.csv: the committed file is not the one that the committed dvc.lock names"
    assert fault in lines


@pytest.mark.parametrize("kept", [True, False], ids=["artifacts there", "artifacts missing"])
def test_damaged_cache_objects_are_named_and_mended_by_what_is_said(toy, tmp_path, capsys, kept):
    """All of them: a model, a folder, the file in it, and the metrics, write-protected as DVC leaves them."""
    damaged = sorted(path.relative_to(toy.path) for path in (toy.path / ".dvc/cache/files/md5").glob("??/*"))
    assert [path.suffix for path in damaged].count(".dir") == 1
    for path in damaged:
        flip(toy.path / path)
    if not kept:
        shutil.rmtree(toy.path / "models")
        (toy.path / "model").unlink()
    assert fresh_clone.inspect_workspace(toy.path, tmp_path / "state") == len(damaged) == 4
    assert capsys.readouterr().out.splitlines()[1:-1] == [f"  damaged: {path}" for path in damaged]
    mend(toy, tmp_path, damaged)


def test_damaged_artifacts_that_dvc_takes_for_good_are_named_and_mended_by_what_is_said(toy, tmp_path):
    toy.run("dvc", "status")
    flip(toy.path / "model")
    flip(toy.path / "models/1")
    assert "up to date" in toy.run("dvc", "status")
    assert fresh_clone.inspect_workspace(toy.path, tmp_path / "state") == 2
    mend(toy, tmp_path, [Path("model"), Path("models")])


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("models/1", "../shared cache"),
        pytest.param("models/1", "shared/cache", marks=pytest.mark.slow),
        pytest.param("model", "shared/cache", marks=pytest.mark.slow),
        pytest.param("model", "../shared cache", marks=pytest.mark.slow),
    ],
)
def test_what_a_damaged_cache_that_was_moved_gave_out_is_named_after_a_run_and_mended(toy, tmp_path, name, place):
    look = (sys.executable, "-m", "tools.verify.outputs")
    cache, own = toy.path / place, {"PYTHONPATH": str(ROOT)}
    cache.parent.mkdir(exist_ok=True)
    shutil.move(toy.path / ".dvc/cache", cache)
    toy.run("dvc", "config", "--local", "cache.dir", str(cache.resolve()))
    assert toy.run(*look, **own) == ""
    md5 = hashlib.md5((toy.path / name).read_bytes()).hexdigest()
    flip(cache / "files/md5" / md5[:2] / md5[2:])
    shutil.rmtree(toy.path / "models")
    (toy.path / "model").unlink()
    toy.run("dvc", "repro")
    line = toy.run(*look, code=1, **own)
    assert line.startswith(f"error: {name}: damaged: not what dvc.lock says, nor is DVC's cache; to mend: rm -rf ")
    toy.run("sh", "-c", line.partition("to mend: ")[2])
    assert toy.run(*look, **own) == ""
    assert (toy.path / "model").read_text() == "weights"
    assert (toy.path / "models/1").read_text() == "first"
    assert fresh_clone.inspect_workspace(toy.path, tmp_path / "state after") == 0


def test_damage_fails_the_verdict_of_an_identical_clone(toy):
    flip(toy.path / "model")
    lines = verified(toy, FAILED)
    assert lines[:3] == [
        "Workspace: 3 outputs and 4 objects in the cache, 1 damaged",
        "  damaged: model",
        "  to mend: rm -rf model && dvc repro",
    ]
    assert lines[-1].startswith("DAMAGED: 1 of the files in this workspace, see above; apart from that IDENTICAL: ")


def flip(path: Path) -> None:
    """Change one bit and neither size nor time nor mode."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def mend(workspace: Workspace, tmp_path: Path, damaged: list[Path]) -> None:
    """Run the repair command, after which nothing is damaged and nothing is left to do."""
    workspace.run("sh", "-c", repair_command(damaged))
    assert fresh_clone.inspect_workspace(workspace.path, tmp_path / "state after") == 0
    assert "up to date" in workspace.run("dvc", "status")
    assert (workspace.path / "model").read_text() == "weights"
    assert (workspace.path / "models/1").read_text() == "first"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_folder_and_no_process(toy, number):
    temporary = toy.path.parent / "temporary"
    temporary.mkdir()
    own = toy.environment | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "TOY_SLEEP": "300"}
    command = [sys.executable, "-m", "tools.verify.fresh_clone"]
    given = {"cwd": toy.path, "env": own, "stdout": subprocess.PIPE, "text": True}
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which is ignored below `make test &`
    with subprocess.Popen(command, **given, preexec_fn=heed) as process:
        deadline = time.monotonic() + 60
        while not (log(toy).exists() and "making" in log(toy).read_text()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.splitlines()[-1] == "INTERRUPTED: nothing is verified"
    assert list(temporary.iterdir()) == []
    folders = (Path(f"/proc/{path.name}/cwd") for path in Path("/proc").iterdir() if path.name.isdecimal())
    assert not [folder for folder in folders if str(temporary) in reach(folder)]


def reach(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def test_a_plain_folder_and_a_commit_without_lock_are_one_line(toy):
    toy.run("git", "rm", "--quiet", "--cached", "dvc.lock")
    toy.run("git", "commit", "--quiet", "-m", "no lock")
    (line,) = verified(toy, FAILED)[2:]
    assert line == "error: dvc.lock: no such file; `dvc repro` makes it, and it must be committed"
    shutil.rmtree(toy.path / ".git")
    assert verified(toy, FAILED) == ["error: verify clones a commit, and this is a plain folder without .git"]


@pytest.mark.slow
def test_the_real_pipeline_is_reproduced_by_a_clone_of_it(tmp_path):
    project = copy_project(tmp_path / "project")
    commit_all(project)
    project.run("dvc", "repro")
    commit(project, "results")
    lines = verified(project, IDENTICAL)
    assert lines[-1].startswith("IDENTICAL: ")
