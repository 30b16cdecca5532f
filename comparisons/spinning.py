"""Training steps of two threads that wait by spinning for a longer or a shorter time, quiet and with one core busy.

    python -m comparisons.spinning [--rounds 30] [--network tiny]

GNU OpenMP, which PyTorch brings, lets threads that wait spin GOMP_SPINCOUNT times before they sleep, 300,000 by
default: on a busy machine the spinning takes the core that the thread waited for needs. Milliseconds per step at
batches of 256 synthetic images, as in comparisons.processes; the settings take turns in random order, and end in equal
bytes or not. Needs two idle cores, and takes 5 minutes. Writes comparisons/results/spinning.csv and spinning.md.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from comparisons.processes import (
    MACHINES,
    PARAMS,
    PATIENCE_SECONDS,
    STEPS,
    describe_machine,
    one_core_busy,
    take_turn,
    write_params,
)
from comparisons.processes_report import BUSY, NETWORKS, SETUPS, THREADS
from lightweight.core.files import write_csv, write_text
from lightweight.evaluation.statistics import median_interval
from lightweight.execution.process import fix_arithmetic, run_stage
from lightweight.reporting.table import markdown

FIGURES, TABLE = (Path("comparisons/results") / f"spinning.{kind}" for kind in ("csv", "md"))
COLUMNS = ["network", "machine", "spin_count", "round", "step_ms", "sha256", "cpu", "cores", "load", "date", "torch"]
VARIABLE, DEFAULT, SHORT = "GOMP_SPINCOUNT", "300000", "30000"
SPAWN = multiprocessing.get_context("spawn")  # the library reads the variable when it is loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--network", action="append", choices=NETWORKS, dest="networks", help="by default all")
    given, about, rows = parser.parse_args(), describe_machine(), []
    for network in given.networks or NETWORKS:
        rows += [row | about for row in measure(network, given.rounds)]
        write_csv(FIGURES, COLUMNS, rows)
    text = describe(pd.DataFrame(rows))
    write_text(TABLE, text)
    print(text)


def measure(network: str, rounds: int) -> list[dict[str, Any]]:
    """Let the settings take turns with a network, and return a row of figures for each turn."""
    order, rows, digests = random.Random(0), [], {}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        params = write_params(Path(folder) / "params.yaml", network, SETUPS[THREADS])
        workers = {count: stack.enter_context(running(network, params, count)) for count in (DEFAULT, SHORT)}
        for connection in workers.values():
            take_turn([connection])  # which allocates what the first turn would pay for
        for number in range(1, rounds + 1):
            for machine in order.sample(MACHINES, len(MACHINES)):
                with one_core_busy() if machine == BUSY else ExitStack():
                    for count in order.sample(list(workers), len(workers)):
                        row = {"network": network, "machine": machine, "spin_count": count, "round": number}
                        rows.append(row | {"step_ms": round(take_turn([workers[count]]), 3)})
            print(f"{network}  round {number} of {rounds}", flush=True)
        for count, connection in workers.items():
            connection.send(False)
            digests[count] = connection.recv()
    return [row | {"sha256": digests[row["spin_count"]]} for row in rows]


@contextmanager
def running(network: str, params: Path, count: str) -> Iterator[Connection]:
    """Start a process that trains when its turn comes, and yield a connection to it."""
    ours, theirs = SPAWN.Pipe()
    os.environ[VARIABLE] = count
    process = SPAWN.Process(target=train, args=(params, max(1, STEPS[network] // 4), theirs))
    process.start()
    del os.environ[VARIABLE]
    theirs.close()
    try:
        yield ours
        process.join(PATIENCE_SECONDS)
    finally:
        process.kill()
        process.join()


def train(params: Path, steps: int, connection: Connection) -> None:
    """Train in turns, and send the hash of the weights in the end."""
    from comparisons.training_steps import serve

    weights = serve(params, steps, [connection]).model.state_dict()
    content = b"".join(tensor.numpy().tobytes() for tensor in weights.values())
    connection.send(hashlib.sha256(content).hexdigest())


def describe(figures: pd.DataFrame) -> str:
    """Describe the comparison in Markdown, with the machine that it was made on."""
    first = figures.iloc[0]
    return (
        f"Milliseconds per training step at batches of 256 by two threads that spin so often while they wait "
        f"({VARIABLE}), median of {figures['round'].max()} rounds, on {first['cores']} cores of {first['cpu']}, "
        f"{first['date']}, PyTorch {first['torch']}, load before {first['load']:.2f}. The ratio has its 95 % interval."
        "\n\n"
        f"{markdown(compare(figures))}"
    )


def compare(figures: pd.DataFrame) -> pd.DataFrame:
    """Compare short with long spinning: milliseconds and their ratio with its 95 % interval, and the bytes, as text."""
    rows = []
    for (network, machine), own in figures.groupby(["network", "machine"], sort=False):
        times = own.pivot(index="round", columns="spin_count", values="step_ms")
        ratios = (times[SHORT] / times[DEFAULT]).to_numpy()
        low, high = median_interval(ratios)
        row = {"network": network, "machine": machine}
        row |= {f"{count} (ms)": f"{times[count].median():.1f}" for count in (DEFAULT, SHORT)}
        row |= {"ratio": f"{np.median(ratios):.2f} [{low:.2f}, {high:.2f}]"}
        rows.append(row | {"bytes": "equal" if own["sha256"].nunique() == 1 else "differ"})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    fix_arithmetic(PARAMS)
    run_stage(main)
