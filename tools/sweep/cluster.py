"""The cluster of dask.distributed that runs the experiments of a sweep: processes of this machine, or a user's own."""

import logging
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Security, as_completed
from distributed.diagnostics.plugin import UploadFile

from lightweight.core.errors import InputError, one_line
from tools.sweep import experiment
from tools.sweep.experiment import Job, Outcome, run_on_worker

TIMEOUT = 10  # seconds, to reach a scheduler
ATTEMPTS = 4  # of an experiment whose worker is killed


def count_workers(wanted: int | None, lines: int) -> int:
    """Count the local workers: as many as asked for or as there are cores, but not more than experiments."""
    return max(1, min(wanted or CPU_COUNT, lines))


def share_of_cores(workers: int) -> int:
    """Return how many cores of this machine each of so many workers has to itself."""
    return max(1, CPU_COUNT // workers)


def count_connected(client: Client) -> int:
    """Count the workers that are there now; others may come."""
    return len(client.scheduler_info(n_workers=-1)["workers"])


@contextmanager
def start_workers(number: int, folder: Path) -> Iterator[Client]:
    """Start a scheduler and workers on this machine that only this process can use: by keys that are in no file."""
    dask.config.set({"distributed.scheduler.allowed-failures": ATTEMPTS - 1})
    heed = signal.signal(signal.SIGINT, signal.SIG_IGN)  # at Ctrl-C, this process alone ends the others
    cluster = LocalCluster(
        n_workers=number,
        threads_per_worker=1,
        memory_limit=0,
        dashboard_address=None,
        security=Security.temporary(),
        local_directory=str(folder),
        silence_logs=logging.CRITICAL,
    )
    signal.signal(signal.SIGINT, heed)
    try:
        with Client(cluster) as client:
            yield client
    finally:
        with suppress(TimeoutError):  # of workers that had to be killed, after Ctrl-C
            cluster.close()


@contextmanager
def reach_scheduler(address: str) -> Iterator[Client]:
    """Reach the scheduler of a cluster that the user has started. Raises InputError within seconds."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=TIMEOUT)
    except (OSError, ValueError, TypeError) as error:
        rule = f"no scheduler of dask was reached within {TIMEOUT} seconds: {one_line(error)}"
        raise InputError(f"--scheduler = {address!r}: {rule}") from None
    with client:
        yield client


class Portable:
    """Represent a call of no arguments that is pickled with its code: workers elsewhere do not have this module."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._content = cloudpickle.dumps(call)

    def __call__(self) -> Any:
        return cloudpickle.loads(self._content)()

    def __reduce__(self) -> tuple[Any, ...]:
        return cloudpickle.loads, (self._content,)


def run_jobs(client: Client, jobs: Sequence[Job], bundle: Path) -> Iterator[Outcome]:
    """Run the experiments on the workers, which get the file `bundle`, and yield each outcome when it is there.

    The experiment of a worker that was killed is run again by another one, up to `ATTEMPTS` times.
    """
    cloudpickle.register_pickle_by_value(experiment)
    sweep = uuid.uuid4().hex
    client.register_plugin(UploadFile(str(bundle), load=False), name=sweep)
    try:
        calls = {f"{job.name}-{sweep}": Portable(partial(run_on_worker, job)) for job in jobs}
        futures = [client.submit(call, key=key, pure=False) for key, call in calls.items()]
        for future in as_completed(futures):
            try:
                yield future.result()
            except Exception as error:  # KilledWorker, or whatever a worker could not do
                name = future.key.removesuffix(f"-{sweep}")
                yield Outcome(name, 0.0, "", failure=one_line(f"{type(error).__name__}: {error}"))
            future.release()
    finally:
        client.unregister_worker_plugin(sweep)
