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
from lightweight.execution.ranks import FOLDER, broadcast

SIOCGIFADDR = 0x8915  # linux/sockios.h


def work(main: Callable[[], None], params: Path, folder: Path, machines: Any) -> None:
    """Run `main` as one of several processes.

    The processes of one machine meet by a file in `folder`, and talk over the loopback interface. What a restart cannot
    mend is written to the file `failure` there.
    """
    import torch
    import torch.distributed as dist

    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
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


def check_equal(params: Path) -> None:
    """Raise InputError unless this process has the parameters, code, versions and instruction set of rank 0."""
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


def host_store(port: int) -> None:
    """Host the store by which the processes of several machines meet, in a process of its own.

    The process that starts others must not host it: a fork of a process with busy threads may hang. Raises InputError
    for a port that is in use.
    """
    from torch.distributed import TCPStore

    reader, writer = os.pipe()
    if not os.fork():
        die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
            os.write(writer, str(store.port).encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    answer = os.read(reader, 16)  # empty if the other process has ended
    os.close(reader)
    if not answer:
        raise InputError(f"environment: LIGHTWEIGHT_RENDEZVOUS: port {port} is in use or may not be used")


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
