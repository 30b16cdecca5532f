"""Training steps by one and two processes: exact, by DistributedDataParallel, and on a machine with one core busy.

    python -m comparisons.processes [--rounds 8] [--network tiny] [--machine quiet]

Milliseconds per step at batches of 256 synthetic images, with augmentation and optimizer of params.yaml. Every setup is
a stage of its own, started like those of the pipeline; the setups take turns of about a second in random order, in each
round on the quiet machine and with one core kept busy by a spinning process. Needs two idle cores, and takes 6 minutes.
Writes comparisons/results/processes.csv, and the table of comparisons.processes_report.
"""

import argparse
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from comparisons.processes_report import BUSY, COLUMNS, FIGURES, NETWORKS, QUIET, SETUPS, Setup, report
from lightweight.core.errors import InputError
from lightweight.core.files import write_csv, write_json
from lightweight.core.machine import cpu_name, load_average, vector_extensions
from lightweight.core.yaml import read_yaml
from lightweight.execution.process import die_with_parent, fix_arithmetic, run_stage

PARAMS, BATCH_SIZE = Path("params.yaml"), 256
STEPS = {"resnet20": 2, "cnn": 4, "tiny": 16}  # of a turn
SLOWEST = 4  # a setup of several threads may be fifty times slower on a busy machine: it takes so much fewer steps
MACHINES = (QUIET, BUSY)
ROUNDS, PAUSE_SECONDS, PATIENCE_SECONDS = 8, 0.2, 120
SECTION = {"batch_size": BATCH_SIZE, "schedule": "constant", "lr": 0.001, "ema": 0.0, "weights": None, "freeze": []}
FORK = multiprocessing.get_context("fork")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--network", action="append", choices=NETWORKS, dest="networks", help="by default all")
    parser.add_argument("--machine", action="append", choices=MACHINES, dest="machines", help="by default both")
    given = parser.parse_args()
    machines = given.machines or MACHINES
    about, rows = describe_machine(), []
    for network in given.networks or NETWORKS:
        rows += [row | about for row in measure(network, machines, given.rounds)]
        write_csv(FIGURES, COLUMNS, rows)
    report()


def describe_machine() -> dict[str, Any]:
    """Describe what the figures were measured with, and how busy the machine was before."""
    return {
        "cpu": f"{cpu_name()} ({vector_extensions()})",
        "cores": len(os.sched_getaffinity(0)),
        "load": load_average(),
        "date": datetime.now(UTC).date().isoformat(),
        "torch": metadata.version("torch"),
    }


def measure(network: str, machines: tuple[str, ...], rounds: int) -> list[dict[str, Any]]:
    """Let the setups of a network take turns, and return a row of figures for each turn."""
    order, rows = random.Random(0), []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        workers = {name: stack.enter_context(running(network, setup, folder / name)) for name, setup in SETUPS.items()}
        for own in workers.values():
            take_turn(own)  # which allocates what the first turn would pay for
        for number in range(rounds):
            for machine in order.sample(machines, len(machines)):
                with one_core_busy() if machine == BUSY else ExitStack():
                    for name in order.sample(list(workers), len(workers)):
                        row = {"network": network, "machine": machine, "setup": name, "round": number + 1}
                        rows.append(row | {"step_ms": round(take_turn(workers[name]), 3)})
            print(f"{network}  round {number + 1} of {rounds}", flush=True)
    return rows


@contextmanager
def running(network: str, setup: Setup, params: Path) -> Iterator[list[Connection]]:
    """Start the processes of a setup, which wait for their turns, and yield a connection to each."""
    write_params(params, network, setup)
    pairs = [FORK.Pipe() for _ in range(setup.processes)]
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    steps = max(1, STEPS[network] // (SLOWEST if setup.threads > 1 else 1))
    stage = FORK.Process(target=run_setup, args=(params, setup, steps, theirs))
    stage.start()
    for connection in theirs:  # which only its processes keep, so that their end is noticed
        connection.close()
    try:
        yield ours
        for connection in ours:
            connection.send(False)
        stage.join(PATIENCE_SECONDS)
    finally:
        stage.kill()  # its processes end with it
        stage.join()


def write_params(path: Path, network: str, setup: Setup) -> Path:
    """Write params.yaml with a network and a setup to `path`, and return it."""
    content = read_yaml(PARAMS) | {"threads": setup.threads}
    content["train"] |= SECTION | {"network": network, "shards": setup.shards, "exact": setup.exact}
    write_json(path, content)  # which is YAML, too
    return path


def run_setup(params: Path, setup: Setup, steps: int, connections: list[Connection]) -> None:
    """Run the stage of a setup, on its processes."""
    from comparisons.training_steps import serve
    from lightweight.execution.launch import run_parallel_stage

    for name in [name for name in os.environ if name.startswith("LIGHTWEIGHT_")]:
        del os.environ[name]
    os.environ["LIGHTWEIGHT_PROCESSES"] = str(setup.processes)
    run_parallel_stage(lambda: serve(params, steps, connections), params, lambda line: None)


def take_turn(connections: list[Connection]) -> float:
    """Let the processes of a setup train for an epoch, and return milliseconds per step of the slowest."""
    time.sleep(PAUSE_SECONDS)  # threads of others spin on for a moment
    try:
        for connection in connections:
            connection.send(True)
        if not all(connection.poll(PATIENCE_SECONDS) for connection in connections):
            raise InputError(f"a process has not answered within {PATIENCE_SECONDS} seconds")
        return max(connection.recv() for connection in connections)
    except (EOFError, ConnectionError):
        raise InputError("a process has ended; its message stands above") from None


@contextmanager
def one_core_busy() -> Iterator[None]:
    """Keep one core busy by a process of its own."""
    spinning = FORK.Process(target=spin)
    spinning.start()
    try:
        yield
    finally:
        spinning.kill()
        spinning.join()


def spin() -> None:
    """Compute nothing, for ever."""
    die_with_parent()
    while True:
        pass


def prepare() -> None:
    """Fix the arithmetic, then import what all setups need, once for all of them."""
    fix_arithmetic(PARAMS)
    import comparisons.training_steps  # noqa: F401 - before the forks


if __name__ == "__main__":
    prepare()
    run_stage(main)
