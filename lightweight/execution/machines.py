"""The machines that compute a stage together, as the environment names them.

LIGHTWEIGHT_PROCESSES   processes on this machine; by default as many as its cores and section `train` allow
LIGHTWEIGHT_NODES       machines that compute together, 1 by default; every one runs the same command in its clone
LIGHTWEIGHT_RENDEZVOUS  HOST:PORT of the first machine, on which it listens
LIGHTWEIGHT_NODE_RANK   the number of this machine, from 0
LIGHTWEIGHT_WAIT        seconds to wait for the other machines, and for a process that does not answer
"""

import fcntl
import os
import re
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, StrictBool

from lightweight.core.errors import InputError
from lightweight.core.params import Shards
from lightweight.execution.process import die_with_parent

if TYPE_CHECKING:
    from torch.distributed import TCPStore

MAX_PROCESSES = 64
IMAGES_PER_PROCESS = 32  # of a batch where training is not exact, below which BatchNorm sees few: for the default only
ADDRESS = re.compile(r"(?P<host>[^:]+):(?P<port>\d{1,5})")
PROBES = 5  # without an answer, until a connection counts as broken
SIOCGIFADDR = 0x8915  # linux/sockios.h


@dataclass(frozen=True)
class Machines:
    """Hold how many processes run on this machine, and how it finds the others."""

    processes: int
    nodes: int
    node: int
    rendezvous: str
    wait: int

    @property
    def total(self) -> int:
        """Count the processes of all machines."""
        return self.processes * self.nodes

    @property
    def first(self) -> tuple[str, int]:
        """Return host and port of machine 0."""
        host, _, port = self.rendezvous.rpartition(":")
        return host, int(port)


class ParallelSection(BaseModel):
    """Read from section `train` what decides about processes; its own stage checks the other keys."""

    shards: Shards
    exact: StrictBool
    batch_size: int = Field(ge=2, strict=True)

    @property
    def parts(self) -> int:
        """Count the parts of a batch, at most so many processes compute by default; without `exact` parts are large."""
        return self.shards if self.exact else max(1, self.batch_size // IMAGES_PER_PROCESS)


def read_machines(threads: int, parts: int) -> Machines:
    """Read the variables above, for work that has so many parts.

    Raises InputError that names the variable, its value and the rule.
    """
    nodes = read_number("LIGHTWEIGHT_NODES", 1, 1, MAX_PROCESSES)
    node = read_number("LIGHTWEIGHT_NODE_RANK", 0, 0, nodes - 1)
    wait = read_number("LIGHTWEIGHT_WAIT", 300, 1, 86_400)
    rendezvous = os.environ.get("LIGHTWEIGHT_RENDEZVOUS", "")
    match = ADDRESS.fullmatch(rendezvous)
    if nodes > 1 and not (match and 0 < int(match["port"]) < 2**16):
        rule = "must be HOST:PORT of the first machine"
        raise InputError(f"environment: LIGHTWEIGHT_RENDEZVOUS = {rendezvous!r}: {rule}")
    most = min(parts // nodes, max(1, usable_cores() // threads), MAX_PROCESSES)
    default = 1 << (max(1, most).bit_length() - 1)  # a power of two, which divides `train.shards`
    return Machines(read_number("LIGHTWEIGHT_PROCESSES", default, 1, MAX_PROCESSES), nodes, node, rendezvous, wait)


def count_inexact_processes(threads: int, train: ParallelSection) -> int | None:
    """Count the processes that train here, if results depend on their number; None where training is exact."""
    return None if train.exact else read_machines(threads, train.parts).total


def usable_cores() -> int:
    """Count the cores that this process may use: those it is bound to, and no more than a container's quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(bound, int(quota) // int(period)))
    except (OSError, ValueError):  # no control groups, or no limit
        return bound


def read_number(name: str, default: int, low: int, high: int) -> int:
    """Read a variable of the environment, or `default` if it is not set. Raises InputError."""
    value = os.environ.get(name) or str(default)
    if not value.isdecimal() or not low <= int(value) <= high:
        raise InputError(f"environment: {name} = {value!r}: must be an integer from {low} to {high}")
    return int(value)


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


def wait_for_listener(address: tuple[str, int], seconds: float) -> None:
    """Wait until somebody listens at an address. Raises OSError after so many seconds.

    The store of torch would wait twice as long, and then print its stack.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(address, max(1.0, deadline - time.monotonic())).close()
        except OSError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(min(1.0, seconds / 10))
        else:
            return


def expect_answers(connection: socket.socket, seconds: int) -> None:
    """Let a connection break after so many seconds in which the other end's kernel has not answered."""
    pace = max(1, seconds // (PROBES + 1))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, pace)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, pace)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * pace * PROBES)


def receive(connection: socket.socket, size: int) -> bytes:
    """Receive at most `size` bytes; none if the connection has ended or broken."""
    try:
        return connection.recv(size)
    except OSError:
        return b""


def host_store(port: int, serve: Callable[["TCPStore"], object]) -> None:
    """Host the store by which the processes of several machines meet, in a process of its own, which calls `serve`.

    The process that starts others must not host it: a fork of a process with busy threads may hang. Raises InputError
    for a port that is in use.
    """
    from torch.distributed import TCPStore  # others who count processes do not wait for torch

    reader, writer = os.pipe()
    if not os.fork():
        die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
            os.write(writer, str(store.port).encode())
            serve(store)
        finally:
            os._exit(1)
    os.close(writer)
    answer = os.read(reader, 16)  # empty if the other process has ended
    os.close(reader)
    if not answer:
        raise InputError(f"environment: LIGHTWEIGHT_RENDEZVOUS: port {port} is in use or may not be used")
