"""How many processes compute a stage, by the environment and by default, and what is refused."""

import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lightweight.core.errors import InputError
from lightweight.execution import agreement, launch, machines, worker
from lightweight.execution.agreement import check_equal, describe
from lightweight.execution.machines import Machines, ParallelSection, read_machines, wait_for_listener

VARIABLES = ("PROCESSES", "NODES", "NODE_RANK", "RENDEZVOUS", "WAIT")
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(f"LIGHTWEIGHT_{name}", raising=False)


@pytest.mark.parametrize(
    ("cores", "threads", "shards", "processes"),
    [
        (1, 1, 8, 1),
        (2, 1, 1, 1),
        (2, 1, 2, 2),
        (3, 1, 8, 2),
        (16, 1, 4, 4),
        (16, 4, 8, 4),
        (2, 4, 8, 1),
        (100, 1, 64, 64),
    ],
)
def test_there_are_as_many_processes_as_cores_and_shards_allow(monkeypatch, cores, threads, shards, processes):
    monkeypatch.setattr(machines, "usable_cores", lambda: cores)
    assert read_machines(threads, shards).processes == processes


@pytest.mark.parametrize(
    ("exact", "batch_size", "processes"), [(True, 256, 2), (False, 256, 8), (False, 64, 2), (False, 8, 1)]
)
def test_without_exact_batches_limit_processes_in_place_of_shards(monkeypatch, exact, batch_size, processes):
    monkeypatch.setattr(machines, "usable_cores", lambda: 8)
    train = ParallelSection(shards=2, exact=exact, batch_size=batch_size)
    assert read_machines(1, train.parts).processes == processes
    assert machines.count_inexact_processes(1, train) == (None if exact else processes)


def test_all_machines_count_among_the_processes_on_which_results_depend(monkeypatch):
    for name, value in (("PROCESSES", "3"), ("NODES", "2"), ("RENDEZVOUS", "10.0.0.1:29400")):
        monkeypatch.setenv(f"LIGHTWEIGHT_{name}", value)
    assert machines.count_inexact_processes(1, ParallelSection(shards=1, exact=False, batch_size=64)) == 6


def test_the_environment_decides_about_processes_and_machines(monkeypatch):
    for name, value in (("PROCESSES", "3"), ("NODES", "2"), ("NODE_RANK", "1"), ("RENDEZVOUS", "10.0.0.1:29400")):
        monkeypatch.setenv(f"LIGHTWEIGHT_{name}", value)
    found = read_machines(1, 8)
    assert (found.processes, found.nodes, found.node, found.rendezvous) == (3, 2, 1, "10.0.0.1:29400")


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("PROCESSES", "0", "must be an integer from 1 to 64"),
        ("PROCESSES", "two", "must be an integer from 1 to 64"),
        ("NODES", "-1", "must be an integer from 1 to 64"),
        ("NODE_RANK", "1", "must be an integer from 0 to 0"),
        ("WAIT", "0", "must be an integer from 1 to 86400"),
    ],
)
def test_a_bad_variable_is_refused_by_name_value_and_rule(monkeypatch, name, value, rule):
    monkeypatch.setenv(f"LIGHTWEIGHT_{name}", value)
    with pytest.raises(InputError, match=f"^environment: LIGHTWEIGHT_{name} = '{value}': {rule}$"):
        read_machines(1, 8)


@pytest.mark.parametrize("address", ["", "host", "host:", "host:0", "host:65536", ":29400", "a:b:1"])
def test_machines_need_an_address_to_meet_at(monkeypatch, address):
    monkeypatch.setenv("LIGHTWEIGHT_NODES", "2")
    monkeypatch.setenv("LIGHTWEIGHT_RENDEZVOUS", address)
    with pytest.raises(InputError, match=r"^environment: LIGHTWEIGHT_RENDEZVOUS = .*: must be HOST:PORT of the first"):
        read_machines(1, 8)


@pytest.mark.parametrize("name", ["params.yaml: train", "version of torch", "code of lightweight and stages"])
def test_a_process_that_computes_something_else_is_refused_by_what_differs(monkeypatch, name):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("lightweight.execution.ranks.dist.is_initialized", lambda: False)
    check_equal(Path("params.yaml"))
    others = describe(Path("params.yaml")) | {name: "another"}
    monkeypatch.setattr(agreement, "broadcast", lambda content: agreement.json.dumps(others).encode())
    with pytest.raises(InputError, match=f"^machine 0: {name} = .*: of process 0 it is 'another'; all machines must"):
        check_equal(Path("params.yaml"))


def test_somebody_who_comes_late_is_waited_for_and_nobody_for_no_longer_than_said():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(ConnectionRefusedError):
        wait_for_listener(address, 0.2)
    late: list[socket.socket] = []
    timer = threading.Timer(0.5, lambda: late.append(socket.create_server(address)))
    timer.start()
    wait_for_listener(address, 100)
    timer.join()
    late[0].close()


def store_is_lost() -> Exception:
    from torch.distributed.elastic.rendezvous import RendezvousConnectionError

    return RendezvousConnectionError("The connection to the store\nhas failed.")


def nobody_comes() -> Exception:
    from torch.distributed.elastic.rendezvous import RendezvousTimeoutError

    return RendezvousTimeoutError()


ABSENT = "2 machines have not met at 10.0.0.1:29400 within 5 seconds (LIGHTWEIGHT_WAIT): "
RULE = "; the same command goes on at the last checkpoint"


@pytest.mark.parametrize(
    ("met", "fail", "line"),
    [
        (False, nobody_comes, f"{ABSENT}one has not come"),
        (False, store_is_lost, f"{ABSENT}The connection to the store has failed."),
        (True, nobody_comes, f"a machine or process stopped answering{RULE}"),
        (True, store_is_lost, f"The connection to the store has failed.{RULE}"),
        (False, lambda: InputError("machine 1 is here already"), "machine 1 is here already"),
    ],
)
def test_machines_that_part_are_told_otherwise_than_machines_that_have_not_met(monkeypatch, met, fail, line):
    def elastic_launch(*_):
        def run(main, params, folder, machines):
            if met:
                (folder / "met").touch()
            raise fail()

        return run

    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")  # or it would stay after this test
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", elastic_launch)
    monkeypatch.setattr(launch, "_configure", lambda *_: None)
    monkeypatch.setattr(launch, "watch_machines", lambda *_: contextlib.nullcontext())
    with pytest.raises(InputError) as caught:
        launch._run_agent(lambda: None, Path("params.yaml"), Machines(1, 2, 1, "10.0.0.1:29400", 5))
    assert str(caught.value) == line


def test_a_process_says_that_all_machines_have_met(monkeypatch, tmp_path):
    (tmp_path / "failure").touch()  # or it would go on
    monkeypatch.setattr(worker, "die_with_parent", lambda: None)
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    worker.work(lambda: None, Path("params.yaml"), tmp_path, Machines(1, 2, 1, "10.0.0.1:29400", 5))
    assert (tmp_path / "met").exists()


ENDING = """
import multiprocessing, sys, time
from pathlib import Path
from lightweight.execution.launch import _end

def work():
    time.sleep(5)
    print("still here", flush=True)

multiprocessing.get_context("fork").Process(target=work).start()
_end(Path(sys.argv[1]), "machine 1 has gone away")
"""


def test_a_stage_that_is_ended_leaves_one_line_and_neither_a_process_nor_a_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "met").touch()
    command = [sys.executable, "-c", ENDING, str(folder)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # until no process holds its output
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "error: machine 1 has gone away\n")
    assert not folder.exists()
