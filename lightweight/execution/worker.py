"""One of the processes of a stage: joins the others, checks that all compute the same, and runs the stage.

On every machine one process writes and prints; the others only compute.
"""

import fcntl
import hashlib
import json
import os
import platform
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightweight.core import files
from lightweight.core.errors import InputError
from lightweight.core.machine import package_versions
from lightweight.core.yaml import read_yaml
from lightweight.execution.process import describe_failure, die_with_parent

SIOCGIFADDR = 0x8915  # linux/sockios.h


def work(main: Callable[[], None], params: Path, failure: Path, machines: Any) -> None:
    """Run `main` as one of several processes; what a restart cannot mend is written to the file `failure`."""
    import torch
    import torch.distributed as dist

    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    if failure.exists():  # a restart
        return
    if int(os.environ["LOCAL_RANK"]):
        files.read_only = True
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for the life of the process
    if machines.nodes > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = network_interface(machines.rendezvous)[0]
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    try:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=machines.wait))
        check_equal(params)
        main()
    except files.NothingToWrite:
        return
    except BaseException as error:
        if line := describe_failure(error):
            failure.write_text(line)
        elif not _is_lost_connection(error):
            failure.write_text(f"process {os.environ['RANK']} failed; its traceback stands above")
            traceback.print_exc(file=sys.__stderr__)
        os._exit(1)  # which tells the others, wherever they wait


def _is_lost_connection(error: BaseException) -> bool:
    """Tell whether an exception only says that another process has gone."""
    import torch.distributed as dist
    from torch.distributed.elastic.multiprocessing import SignalException

    texts = ("gloo", "Connection", "NCCL", "timed out", "Timed out")
    return isinstance(error, dist.DistError | SignalException) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    )


def check_equal(params: Path) -> None:
    """Raise InputError unless this process has the parameters, code, versions and instruction set of rank 0."""
    from lightweight.execution.ranks import broadcast

    mine = describe(params)
    content = broadcast(json.dumps(mine).encode())
    first = json.loads(content or b"{}")
    for name, value in mine.items():
        if value != first.get(name):
            rule = f"of process 0 it is {first.get(name)!r}; all machines must compute the same"
            raise InputError(f"machine {os.environ.get('GROUP_RANK', 0)}: {name} = {value!r}: {rule}")


def describe(params: Path) -> dict[str, Any]:
    """Describe what decides about results, by a name for each part that tells where to look."""
    import torch

    content = read_yaml(params)
    versions = {f"version of {name}": version for name, version in package_versions().items()}
    sections = {f"{params}: {name}": json.dumps(value, default=str) for name, value in content.items()}
    digest = hashlib.sha256()
    for path in sorted(path for folder in ("lightweight", "stages") for path in Path(folder).rglob("*.py")):
        digest.update(path.as_posix().encode() + path.read_bytes())
    capability = torch.backends.cpu.get_cpu_capability()
    return {
        **sections,
        "code of lightweight and stages": digest.hexdigest()[:12],
        "version of Python": platform.python_version(),
        **versions,
        "instruction set": capability,
    }


def network_interface(rendezvous: str) -> tuple[str, str]:
    """Find the network interface, and its address, by which this machine reaches HOST:PORT. Raises InputError."""
    host, _, port = rendezvous.rpartition(":")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port)))  # sends nothing
            address = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                request = struct.pack("256s", name.encode()[:15])
                try:
                    found = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)[20:24]
                except OSError:  # an interface without an address
                    continue
                if socket.inet_ntoa(found) == address:
                    return name, address
    except OSError as error:
        raise InputError(f"environment: LIGHTWEIGHT_RENDEZVOUS = {rendezvous!r}: not reached: {error}") from None
    raise InputError(f"environment: LIGHTWEIGHT_RENDEZVOUS = {rendezvous!r}: no network interface leads there")
