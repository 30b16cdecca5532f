"""The launch of a stage on several processes, by the engine of torchrun: one per core, on one machine or on several.

A process that is killed is replaced: all begin again at the last checkpoint. Bad input is not tried again.
"""

import logging
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lightweight.core.errors import InputError
from lightweight.core.params import Threads, load_params
from lightweight.execution.machines import Machines, ParallelSection, host_store, network_interface, read_machines
from lightweight.execution.process import run_stage
from lightweight.execution.watch import call_roll, watch_machines
from lightweight.execution.worker import work

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

MAX_RESTARTS = 3
RULE = "the same command goes on at the last checkpoint"
MAX_ATTEMPTS = 10**6  # of torch's own signs of life, which compare the clocks of machines: watch.py does better
MEMORY = Path("/dev/shm")  # files in memory, on Linux
BYTES_PER_PROCESS = 100_000_000  # of the data set, below which another process costs more than it saves


Log = Callable[[str], object]


def run_parallel_stage(main: Callable[[], None], params: Path, log: Log, data: Path | None = None) -> None:
    """Run a stage on a process per core, or as the environment says; errors end as in `run_stage`.

    The number of processes must divide `train.shards`, unless `train.exact` is false. A stage that only evaluates names
    the file of its `data`, whose size limits their number.
    """
    run_stage(lambda: _launch(main, params, log, data))


def _launch(main: Callable[[], None], params: Path, log: Log, data: Path | None) -> None:
    """Call `main` in this process if one is enough, else in several new ones. Raises InputError."""
    threads = load_params(params, threads=Threads).threads
    if data is None:
        train = load_params(params, train=ParallelSection).train
        machines = read_machines(threads, train.parts)
        if train.exact and train.shards % machines.total:
            number = f"the number of processes, {machines.total} (LIGHTWEIGHT_PROCESSES, LIGHTWEIGHT_NODES)"
            raise InputError(f"{params}: train.shards = {train.shards}: must be a multiple of {number}")
    else:
        sizes = [file.stat().st_size for file in (data, *data.with_suffix("").glob("*")) if file.exists()]
        machines = read_machines(threads, 1 + sum(sizes) // BYTES_PER_PROCESS)
    if machines.total == 1:
        main()
        return
    place = f" on each of {machines.nodes} machines" if machines.nodes > 1 else ""
    noun = "thread" if threads == 1 else "threads"
    log(f"{machines.processes} processes of {threads} {noun}{place}")
    _run_agent(main, params, machines)


def _run_agent(main: Callable[[], None], params: Path, machines: Machines) -> None:
    """Start the processes as forks of this one, which has imported everything, and watch over them."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousTimeoutError
    from torch.distributed.launcher.api import elastic_launch

    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # it would listen here, in threads that a fork may not have
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # failures are told below, in a line
    if machines.node == 0 and machines.nodes > 1:
        host_store(machines.first[1], partial(call_roll, machines))
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        failure = folder / "failure"
        try:
            with watch_machines(machines, failure, partial(_end, folder)):
                elastic_launch(_configure(machines, folder), work)(main, params, folder, machines)
        except InputError:
            raise
        except SignalException as signal:
            raise SystemExit(128 + signal.sigval.value) from None
        except ChildFailedError as error:
            if not failure.exists():
                _, first = error.get_first_failure()
                cause = f"was ended by signal {-first.exitcode}" if first.exitcode < 0 else "lost another one"
                fault = f"Process {first.local_rank} of this stage {cause}, {MAX_RESTARTS} times"
                raise InputError(f"{fault}; {RULE}") from None
        except Exception as error:  # of the rendezvous
            late, met = isinstance(error, RendezvousTimeoutError), (folder / "met").exists()
            absent = "a machine or process stopped answering" if met else "one has not come"
            reason = absent if late else " ".join(str(error).split()) or type(error).__name__
            if met:
                raise InputError(f"{reason}; {RULE}") from None
            others = f"{machines.nodes} machines have not met at {machines.rendezvous or 'this one'}"
            raise InputError(f"{others} within {machines.wait} seconds (LIGHTWEIGHT_WAIT): {reason}") from None
        if failure.exists():
            raise InputError(failure.read_text())


def _configure(machines: Machines, folder: Path) -> "LaunchConfig":
    """Configure the engine: processes of one machine meet by a file in `folder`, several machines by a store."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    single = machines.nodes == 1
    timeouts = {f"{name}timeout": machines.wait for name in ("", "join_", "read_")}
    return LaunchConfig(
        machines.nodes,
        machines.nodes,
        machines.processes,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
        run_id="lightweight",
        rdzv_backend="c10d",
        rdzv_endpoint=str(folder / "rendezvous") if single else machines.rendezvous,
        rdzv_configs={
            "store_type": "file" if single else "tcp",
            "is_host": False,
            "keep_alive_max_attempt": MAX_ATTEMPTS,
            **timeouts,
        },
        max_restarts=MAX_RESTARTS,
        start_method="fork",
        local_addr="127.0.0.1" if single else network_interface(machines.rendezvous)[1],
    )


def _end(folder: Path, line: str) -> None:
    """End this process with a line, wherever it waits, and all that it has started."""
    for process in multiprocessing.active_children():
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)
    os.write(2, f"error: {line}\n".encode())
    os._exit(1)
