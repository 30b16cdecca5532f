"""One of the processes of a stage: joins the others, checks that all compute the same, and runs the stage.

On every machine one process writes and prints; the others only compute.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from lightweight.core import files
from lightweight.execution.agreement import check_equal
from lightweight.execution.machines import Machines, network_interface
from lightweight.execution.process import describe_failure, die_with_parent
from lightweight.execution.tree_sum import FOLDER


def work(main: Callable[[], None], params: Path, folder: Path, machines: Machines) -> None:
    """Run `main` as one of several processes.

    The processes of one machine meet by a file in `folder`, and talk over the loopback interface. What a restart cannot
    mend is written to the file `failure` there. The file `met` there says that all machines have come.
    """
    import torch
    import torch.distributed as dist

    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    (folder / "met").touch()
    failure = folder / "failure"
    if failure.exists():  # and this is a restart
        return
    if int(os.environ["LOCAL_RANK"]):
        files.read_only = True
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for the life of the process
    store = f"file://{folder}/store-{os.environ['TORCHELASTIC_RESTART_COUNT']}"
    interface = network_interface(machines.rendezvous)[0] if machines.nodes > 1 else "lo"
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    if machines.nodes == 1:
        os.environ[FOLDER] = str(folder)
    number, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    try:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        method = "env://" if machines.nodes > 1 else store
        wait = timedelta(seconds=machines.wait)
        dist.init_process_group(backend, method, timeout=wait, rank=number, world_size=size)
        check_equal(params)
        main()
    except files.NothingToWrite:
        return
    except BaseException as error:
        line = describe_failure(error)
        if line is None and not _is_lost_connection(error):
            line = f"process {os.environ['RANK']} failed; its traceback stands above"
            traceback.print_exc(file=sys.__stderr__)
        if line is not None:
            files.read_only = False
            files.write_text(failure, line)
        os._exit(1)  # which tells the others, wherever they wait


def _is_lost_connection(error: BaseException) -> bool:
    """Tell whether an exception only says that another process has gone."""
    import torch.distributed as dist
    from torch.distributed.elastic.multiprocessing import SignalException

    texts = ("gloo", "Connection", "NCCL", "timed out", "Timed out")
    return isinstance(error, dist.DistError | SignalException) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    )
