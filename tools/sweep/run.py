"""The run of a sweep: what is missing goes to the workers, and comes home line by line."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightweight.core.errors import InputError, one_line
from lightweight.core.files import write_text
from tools.sweep.experiment import Job, Outcome
from tools.sweep.lines import Line
from tools.sweep.plan import Planned, plan_sweep
from tools.sweep.repository import BUNDLE, FOLDER, add_experiment, find_commit, has_experiment, lock_sweep, pack_commit
from tools.sweep.results import FOLDER as RESULTS
from tools.sweep.results import Results

if TYPE_CHECKING:
    from distributed import Client

Log = Callable[[str], object]


@dataclass(frozen=True)
class Settings:
    """Hold what the user asks for; `command` is what runs an experiment."""

    file: Path
    scheduler: str | None = None
    workers: int | None = None
    command: tuple[str, ...] = ("dvc", "exp", "run")


def run_sweep(settings: Settings, log: Log) -> bool:
    """Run what is missing of a sweep, tell of each experiment in a line, and return whether all are there.

    Raises InputError before anything runs when the file, the repository or the cluster is not usable.
    """
    if settings.workers is not None and (settings.scheduler or settings.workers < 1):
        raise InputError(f"--workers = {settings.workers}: must be 1 or more, and not stand with --scheduler")
    commit = find_commit()
    planned = plan_sweep(settings.file, commit)
    results = Results(RESULTS / f"{settings.file.stem}.csv", commit, [each.line for each in planned])
    for each in planned:
        if each.present:
            results.add_present(each.line)
    missing = {each.line.name: each for each in planned if not each.present}
    log(f"experiments: {len(planned)}, of which {len(planned) - len(missing)} are there")
    if missing:
        with lock_sweep():
            _run_missing(settings, missing, results, log)
    results.write()
    failed = results.count("failed")
    log(f"{results.count('done')} done, {failed} failed  -> {results.path}; dvc exp show --only-changed")
    return not failed


def _run_missing(settings: Settings, missing: dict[str, Planned], results: Results, log: Log) -> None:
    """Run the missing experiments, and take each in when it comes home."""
    try:
        from tools.sweep import cluster
    except ImportError as error:
        raise InputError(f"{one_line(error)}: `make sweep` installs requirements-sweep.txt in .venv/sweep") from None
    source = pack_commit(results.commit)
    cores: int | None = None
    opened: AbstractContextManager[Client]
    if settings.scheduler:
        opened = cluster.reach_scheduler(settings.scheduler)
    else:
        workers = cluster.count_workers(settings.workers, len(missing))
        cores = cluster.share_of_cores(workers)
        opened = cluster.start_workers(workers, FOLDER.absolute())
    jobs = [
        Job(name, each.line.overrides, each.count_processes(cores) if cores else None, source, settings.command)
        for name, each in missing.items()
    ]
    left = 0
    with opened as client:
        log(f"workers: {cluster.count_connected(client)}")
        for outcome in cluster.run_jobs(client, jobs, BUNDLE):
            log(_take_in(outcome, missing[outcome.name].line, results))
            left += not outcome.stored
    if left:
        log(f"of {left} experiments, the models stayed with the workers: no DVC remote is set (see docs/scale.md)")


def _take_in(outcome: Outcome, line: Line, results: Results) -> str:
    """Add an outcome to the repository and the results, and describe it in a line."""
    words = " ".join(line.overrides)
    if outcome.failure:
        file = FOLDER / f"{line.name}.log"
        write_text(file, outcome.output)
        results.add_failed(line)
        return f"failed  {line.name}  {words}: {one_line(outcome.failure)} ({file})"
    if not has_experiment(results.commit, line.name):
        add_experiment(results.commit, line.name, outcome.bundle)
    metrics = results.add_done(line, outcome.seconds)
    size = f"{metrics['size_bytes']:,} bytes"
    return f"done    {line.name}  {words}  accuracy {metrics['accuracy']:.2%}, {size}, {outcome.seconds:.0f} s"
