"""A sweep runs every line once, on workers that may die, brings all of it home, and refuses what it cannot run."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from lightweight.core.errors import InputError
from lightweight.core.files import read_csv
from lightweight.core.yaml import read_yaml
from tests.contract import ROOT
from tests.finished import Run
from tests.workspace import Workspace, commit_all
from tools.sweep import values
from tools.sweep.lines import Line, read_lines
from tools.sweep.plan import Planned
from tools.sweep.repository import lock_sweep

PARAMS = read_yaml(ROOT / "params.yaml")
PYTHON = ROOT / ".venv/sweep/bin/python"
STUB = Path(__file__).with_name("stub_experiment.py")
RUN = """
import sys
from dataclasses import replace
from pathlib import Path
from lightweight.execution.process import run_stage
from tools.sweep.run import Settings, run_sweep

def main():
    file, address, *command = sys.argv[1:]
    settings = Settings(Path(file), scheduler=address or None, command=tuple(command))
    sys.exit(not run_sweep(settings if address else replace(settings, workers=2), print))

if __name__ == "__main__":
    run_stage(main)
"""


def can_unshare() -> bool:
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode
    )


needs_dask = pytest.mark.skipif(not PYTHON.exists(), reason="`make sweep` installs dask into .venv/sweep")


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "amounts.csv"
    path.write_text(text)
    return path


def read(folder: Path, text: str):
    return read_lines(write(folder, text), PARAMS)


def test_a_line_is_named_by_its_file_and_its_values_in_any_order_of_columns(tmp_path):
    first, second = read(tmp_path, "prune.amount,quantize.method\n0.5,static\n\n0.7,static\n")
    (other,) = read(tmp_path, "\ufeffquantize.method, prune.amount\r\nstatic, 0.5\r\n")
    assert re.fullmatch(r"amounts-[0-9a-f]{8}", first.name)
    assert first.name == other.name != second.name
    assert second.overrides == ("prune.amount=0.7", "quantize.method=static")
    assert second.place.endswith("amounts.csv: line 4")


def test_a_column_of_names_names_the_experiments(tmp_path):
    first, second = read(tmp_path, 'prune.exclude,name\n"[conv1, fc]",all-but.two\nnull,all\n')
    assert (first.name, first.overrides) == ("all-but.two", ("prune.exclude=[conv1, fc]",))
    assert second.name == "all"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a header that names parameters, and a line of values or more"),
        ("prune.amount\n", "must have a header"),
        ("name\nonly\n", "must have a header"),
        ("prune.amonut\n0.5\n", "line 1: 'prune.amonut': no such parameter in params.yaml"),
        ("prune.amount.x\n0.5\n", "line 1: 'prune.amount.x': no such parameter"),
        ("prune.amount,\n0.5,1\n", "line 1: '': no such parameter"),
        ("seed,seed\n1,2\n", "line 1: 'seed' stands twice"),
        ("seed,prune.amount\n1,0.5\n2\n", "line 3: has 1 values, and the header has 2"),
        ("seed,prune.amount\n1,0.5,7\n", "line 2: has 3 values, and the header has 2"),
        ("seed,prune.amount\n1,\n", "line 2: prune.amount has no value; nothing is written as null"),
        ("seed,name\n1,a/b\n", "line 2: name = 'a/b': must be of letters"),
        ("seed,name\n1,-S\n", "line 2: name = '-S': must be of letters"),
        ("seed,name\n1,x.lock\n", "line 2: name = 'x.lock': must be of letters"),
        ('seed\n"1\n', "not a CSV in UTF-8: unexpected end of data"),
    ],
)
def test_a_bad_file_is_refused_by_its_line(tmp_path, text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read(tmp_path, text)


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.csv: no such file"):
        read_lines(tmp_path / "nothing.csv", PARAMS)
    path = write(tmp_path, "")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a CSV in UTF-8"):
        read_lines(path, PARAMS)


def test_values_become_params_as_dvc_makes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = ["prune.amount=0.50", "train.lr=1e-3", "prune.exclude=[conv1, fc]", "prune.max_drop=null"]
    params = values.apply((ROOT / "params.yaml").read_text(), "line 2", overrides)
    assert params["prune"] == PARAMS["prune"] | {"amount": 0.5, "exclude": ["conv1", "fc"]}
    assert params["train"] == PARAMS["train"] | {"lr": 0.001}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prune.amount=1.7", "line 2: params.yaml: prune.amount = 1.7: must be less than 1"),
        ("prune.amount=0.1,0.2", "line 2: prune.amount=0.1,0.2: names several values"),
        ("prune.exclude=[conv1", "line 2: no viable alternative at input"),
        ("quantize.method=best", "line 2: params.yaml: quantize.method = 'best': "),
    ],
)
def test_a_value_that_no_stage_would_take_is_refused(tmp_path, monkeypatch, override, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        values.apply((ROOT / "params.yaml").read_text(), "line 2", [override])


@pytest.mark.parametrize(
    ("shards", "threads", "cores", "count"), [(1, 1, 8, 1), (4, 1, 3, 2), (4, 1, 64, 4), (4, 4, 2, 1)]
)
def test_the_processes_of_an_experiment_fit_its_cores_and_divide_its_shards(shards, threads, cores, count):
    params = {"threads": threads, "train": {"shards": shards}}
    assert Planned(Line("line 2", "a", {}), params, present=False).count_processes(cores) == count


def test_one_sweep_at_a_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with lock_sweep(), pytest.raises(InputError, match="another sweep of this repository runs"), lock_sweep():
        pass
    with lock_sweep():
        pass


@pytest.fixture
def toy(tmp_path) -> Workspace:
    """A repository of DVC with params.yaml and no stages."""
    workspace = Workspace(tmp_path / "toy")
    workspace.path.mkdir()
    (workspace.path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (workspace.path / ".gitignore").write_text("/work/\n")
    workspace.run("git", "init", "--quiet", "--initial-branch=main")
    workspace.run("dvc", "init", "--quiet")
    commit_all(workspace)
    return workspace


def sweep(workspace: Workspace, text: str, *arguments: str, code: int = 0, python: Path | str = sys.executable) -> str:
    write(workspace.path / "sweeps", text)
    command = (str(python), *(arguments or ("-m", "tools.sweep", "sweeps/amounts.csv")))
    return workspace.run(*command, code=code, PYTHONPATH=str(ROOT))


def stub_command(folder: Path, address: str = "") -> tuple[str, ...]:
    """The arguments of a sweep of stub experiments, which write `folder`/log, on the scheduler at an address."""
    script = folder / "run.py"
    script.write_text(RUN)
    stub = ("env", f"PYTHONPATH={ROOT}", sys.executable, str(STUB), str(folder / "log"))
    return (str(script), "sweeps/amounts.csv", address, *stub)


def experiments(workspace: Workspace) -> list[str]:
    refs = workspace.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    return sorted(ref.rpartition("/")[2] for ref in refs)


def test_what_cannot_be_run_is_one_line_before_anything_starts(toy):
    def refused(text: str = "prune.amount\n0.5\n", *arguments: str) -> str:
        *none, line = sweep(toy, text, *arguments, code=1).splitlines()
        assert none == []
        return line

    place = "sweeps/amounts.csv: line"
    same = refused("name,prune.amount\na,0.5\nb,0.50\n")
    assert same == f"error: {place} 3: b: the same experiment as in {place} 2"
    assert refused("name,seed\na,1\na,2\n") == f"error: {place} 3: a: the same experiment as in {place} 2"
    assert refused("seed\n-1\n").startswith(f"error: {place} 2: params.yaml: seed = -1: must be greater")
    arguments = ("-m", "tools.sweep", "sweeps/amounts.csv", "--workers", "0")
    assert refused("seed\n1\n", *arguments) == "error: --workers = 0: must be 1 or more, and not stand with --scheduler"
    (toy.path / "params.yaml").write_text("changed")
    assert refused().startswith("error: params.yaml: not committed, and a sweep is of a commit")
    toy.run("git", "checkout", "params.yaml")
    (toy.path / ".git").rename(toy.path / "git")
    assert refused() == "error: a sweep is of DVC experiments, which need a git clone; this is a plain folder"
    assert {path.name for path in toy.path.iterdir()} & {"work", "metrics"} == set()


@needs_dask
def test_a_scheduler_that_is_not_there_is_one_line(toy):
    for address in ("tcp://127.0.0.1:9", "odd://x"):
        arguments = ("-m", "tools.sweep", "sweeps/amounts.csv", "--scheduler", address)
        lines = sweep(toy, "seed\n1\n", *arguments, code=1, python=PYTHON).splitlines()
        assert lines[0] == "experiments: 1, of which 0 are there"
        assert lines[1].startswith(f"error: --scheduler = {address!r}: no scheduler of dask was reached within")
        assert len(lines) == 2


@needs_dask
def test_each_line_is_done_once_though_a_worker_is_killed_and_one_fails_and_only_that_one_is_run_again(toy, tmp_path):
    text = "name,prune.importance,prune.amount\n"
    text += "".join(f"line{number},l1,0.{number}\n" for number in range(1, 5))
    text += "deadly,taylor,0.5\nunlucky,random,0.6\n"
    log = tmp_path / "log"
    command = stub_command(tmp_path)
    output = sweep(toy, text, *command, code=1, python=PYTHON)
    names = ["deadly", "line1", "line2", "line3", "line4", "unlucky"]

    assert sorted(re.findall(r"^done +(\w+)", output, re.MULTILINE)) == names[:-1], output
    assert re.findall(r"^failed +.*", output, re.MULTILINE) == [
        "failed  unlucky  prune.importance=random prune.amount=0.6: params.yaml: prune.importance: bad luck "
        "(work/sweep/unlucky.log)"
    ]
    assert "5 done, 1 failed  -> sweeps/results/amounts.csv" in output
    assert "bad luck" in (toy.path / "work/sweep/unlucky.log").read_text()
    assert experiments(toy) == names[:-1]
    begun, ended = (
        Counter(line.split()[1] for line in log.read_text().splitlines() if line.startswith(event))
        for event in ("begin", "end")
    )
    assert begun == Counter(names) + Counter(["deadly"])
    assert ended == Counter(names[:-1])
    places = {line.split()[2] for line in log.read_text().splitlines() if line.startswith("begin deadly")}
    assert len(places) == 2, "another worker, or the one that took the place of the dead one"
    for line in log.read_text().splitlines():
        assert not psutil.pid_exists(int(line.split()[3])), line

    rows = {row["experiment"]: row for row in read_csv(toy.path / "sweeps/results/amounts.csv")}
    assert list(rows) == [line.split(",")[0] for line in text.splitlines()[1:]]
    assert {name: row["state"] for name, row in rows.items()} == dict.fromkeys(names, "done") | {"unlucky": "failed"}
    assert (rows["line3"]["prune.amount"], rows["line3"]["accuracy"], rows["line3"]["size_bytes"]) == ("0.3",) * 2 + (
        "1234",
    )
    assert rows["unlucky"]["accuracy"] == ""

    output = sweep(toy, text, *command, python=PYTHON)
    assert "experiments: 6, of which 5 are there" in output
    assert re.findall(r"^(?:done|failed) +(\w+)", output, re.MULTILINE) == ["unlucky"]
    assert experiments(toy) == names
    again = {row["experiment"]: row for row in read_csv(toy.path / "sweeps/results/amounts.csv")}
    assert again["line3"] == rows["line3"]
    assert again["unlucky"]["state"] == "done"

    other = sweep(toy, text.replace("0.1", "0.15"), *command, code=1, python=PYTHON)
    assert other.startswith("error: sweeps/amounts.csv: line 2: line1: this commit has another experiment of that name")


@needs_dask
@pytest.mark.skipif(not can_unshare(), reason="needs a namespace of mounts")
def test_workers_that_have_neither_the_project_nor_the_files_of_the_user_send_everything_home(toy, tmp_path):
    shutil.copytree(ROOT / "lightweight", toy.path / "lightweight", ignore=shutil.ignore_patterns("__pycache__"))
    toy.run("git", "add", ".")
    toy.run("git", "commit", "--quiet", "-m", "the one module that starts an experiment")
    dask, file = str(PYTHON.with_name("dask")), tmp_path / "scheduler.json"
    given = {"cwd": "/", "env": toy.environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    options = ("--no-dashboard", "--scheduler-file", str(file))
    hide = f"mount -t tmpfs none {toy.path} && exec {dask} worker --nthreads 1 --local-directory {tmp_path} {{}}"
    with (
        subprocess.Popen((dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *options), **given) as scheduler,
        subprocess.Popen(("unshare", "--mount", "sh", "-c", hide.format(" ".join(options))), **given) as worker,
    ):
        try:
            while not file.exists():
                assert scheduler.poll() is None
                time.sleep(0.1)
            address = json.loads(file.read_text())["address"]
            text = "name,prune.amount\na,0.1\nb,0.2\n"
            output = sweep(toy, text, *stub_command(tmp_path, address), python=PYTHON)
        finally:
            worker.terminate()
            scheduler.terminate()
    assert experiments(toy) == ["a", "b"], output
    assert "of 2 experiments, the models stayed with the workers: no DVC remote is set" in output
    assert [row["accuracy"] for row in read_csv(toy.path / "sweeps/results/amounts.csv")] == ["0.1", "0.2"]


@needs_dask
@pytest.mark.slow
def test_twelve_real_experiments_survive_a_killed_worker_and_come_home_once(finished: Run, tmp_path):
    """Of the stages from quantize on, by the cache of a pipeline that has run."""
    workspace = Workspace(tmp_path / "clone")
    finished.workspace.run("git", "clone", "--quiet", str(finished.workspace.path), str(workspace.path))
    workspace.run("git", "config", "user.name", "Test")
    workspace.run("git", "config", "user.email", "test@example.com")
    workspace.run("dvc", "cache", "dir", "--local", str(finished.workspace.path / ".dvc/cache"))
    text = "quantize.method,evaluate.batch_size\n"
    text += "".join(f"{method},{size}\n" for method in ("none", "fp16", "int4") for size in (32, 64, 128, 256))
    write(workspace.path / "sweeps", text)
    command = [str(PYTHON), "-m", "tools.sweep", "sweeps/amounts.csv", "--workers", "2"]
    given = {"cwd": workspace.path, "env": workspace.environment, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **given) as process:
        first = [process.stdout.readline() for _ in range(4)]
        assert first[-1].startswith("done"), first
        killed = kill_a_worker_at_work(process.pid)
        output = "".join(first) + process.communicate()[0]
    assert process.returncode == 0, output
    assert killed
    done = re.findall(r"^done +(\S+)", output, re.MULTILINE)
    assert len(done) == len(set(done)) == 12
    assert experiments(workspace) == sorted(done)
    rows = read_csv(workspace.path / "sweeps/results/amounts.csv")
    assert [row["experiment"] for row in rows if row["state"] == "done"] == [row["experiment"] for row in rows]
    assert len({(row["quantize.method"], row["evaluate.batch_size"], row["experiment"]) for row in rows}) == 12
    assert len({row["size_bytes"] for row in rows if row["quantize.method"] == "none"}) == 1
    shown = json.loads(workspace.run("dvc", "exp", "show", "--json"))
    assert sorted(each["name"] for each in shown[1]["experiments"] for each in each["revs"]) == sorted(done)
    assert workspace.run("git", "status", "--porcelain", "--untracked-files=no") == ""
    again = workspace.run(*command)
    assert "experiments: 12, of which 12 are there" in again
    assert "workers" not in again


def kill_a_worker_at_work(sweep: int) -> int:
    """Kill the first process of dask below the sweep that runs DVC, and return its number."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for child in psutil.Process(sweep).children(recursive=True):
            if "exp" in child.cmdline() and "run" in child.cmdline():
                worker = child.parent()
                worker.kill()
                return worker.pid
        time.sleep(0.2)
    raise AssertionError("no experiment runs")
