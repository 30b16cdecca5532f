"""The watch over machines that compute a stage together: where one goes away, the others end and say which one.

Every machine holds a connection to a process of machine 0. It breaks when the stage on that machine ends, and after
SILENCE seconds in which its kernel does not answer. A kernel answers however busy its machine is.
"""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lightweight.core.errors import InputError
from lightweight.execution.machines import Machines, expect_answers, receive, wait_for_listener
from lightweight.execution.process import limit_time

if TYPE_CHECKING:
    from torch.distributed import TCPStore

SILENCE = 90  # seconds: a switch that starts again, or a cable that is plugged in elsewhere, is no fault
PORT = "port of the watch"  # a key of the store
WELCOME = b"+"
FINISHED = b"."
GRACE = 2.0  # seconds in which a failure of this machine, which is worth more to the user, may follow that of another


def call_roll(machines: Machines, store: "TCPStore") -> None:
    """Tell all machines which one has gone away, or that all have finished; for ever. They find the port in `store`."""
    listener = socket.create_server(("", 0))
    store.set(PORT, str(listener.getsockname()[1]))
    Roll(machines).call(listener)


class Roll:
    """Hold a connection to every machine, and tell all as soon as one breaks, or once all have finished."""

    def __init__(self, machines: Machines) -> None:
        self.machines = machines
        self.lock = threading.Lock()
        self.present: dict[int, socket.socket] = {}  # by their numbers
        self.finished = 0
        self.verdict = b""

    def call(self, listener: socket.socket) -> None:
        """Attend to all machines that connect, for ever."""
        while True:
            connection, (host, _) = listener.accept()
            threading.Thread(target=self.attend, args=(connection, host), daemon=True).start()

    def attend(self, connection: socket.socket, host: str) -> None:
        """Wait until a machine finishes or goes away, and tell all what follows from it."""
        expect_answers(connection, silence(self.machines))
        first = receive(connection, 1)
        if not first or first[0] >= self.machines.nodes:  # not one of them
            return
        number = first[0]
        with self.lock:
            if number in self.present:
                self._tell(connection, describe_surplus(number).encode())
                return
            self.present[number] = connection
            self._tell(connection, self.verdict or WELCOME)  # one may have gone away before this one came
        finished = receive(connection, 1)
        with self.lock:
            self.finished += bool(finished)
            if not finished:
                del self.present[number]
                host = host if number else self.machines.first[0]
                self._decide(describe_absence(number, host).encode())
            elif self.finished == self.machines.nodes:
                self._decide(FINISHED)

    def _decide(self, verdict: bytes) -> None:
        """Tell all machines the first verdict, and no other."""
        if not self.verdict:
            self.verdict = verdict
            for connection in self.present.values():
                self._tell(connection, verdict)

    def _tell(self, connection: socket.socket, word: bytes) -> None:
        with contextlib.suppress(OSError):  # of a machine that has gone away
            connection.sendall(word)


class Watch:
    """Call `end` with a line for the user as soon as another machine goes away, or the file `failure` holds a line.

    A thread does so, because the process may wait in a call that no signal interrupts: `end` must not return.
    """

    def __init__(self, connection: socket.socket, host: str, failure: Path, end: Callable[[str], object]) -> None:
        self.connection, self.host, self.failure, self.end = connection, host, failure, end
        self.lock = threading.Lock()
        self.left = False
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        while not select.select([self.connection], [], [], 1)[0]:
            self._end_if_failed()
        verdict = receive(self.connection, 1024)
        line = "the other machines have finished without this one" if verdict == FINISHED else verdict.decode()
        if self.left:  # the verdict is that all have finished, or comes too late to matter
            return
        time.sleep(GRACE)
        self._end_if_failed()
        self._end(line or describe_absence(0, self.host))

    def _end_if_failed(self) -> None:
        if self.failure.exists():
            self._end(self.failure.read_text())

    def _end(self, line: str) -> None:
        with self.lock:
            if not self.left:
                self.end(line)

    def leave(self, seconds: float | None = None) -> None:
        """Say that this machine has finished, and wait so long for the others; None says that it has failed."""
        with self.lock:
            self.left = True
        with contextlib.suppress(OSError):  # the others have ended
            if seconds is not None:
                self.connection.sendall(FINISHED)
                self.thread.join(seconds)
            self.connection.shutdown(socket.SHUT_RDWR)
        self.thread.join()


@contextlib.contextmanager
def watch_machines(machines: Machines, failure: Path, end: Callable[[str], object]) -> Iterator[None]:
    """Watch over the other machines, if there are any, in a context that ends after all have finished.

    Raises InputError if machine 0 turns this one away, and what torch and sockets raise if it is not there.
    """
    if machines.nodes == 1:
        yield
        return
    from torch.distributed import TCPStore

    name, port = machines.first
    wait = timedelta(seconds=machines.wait)
    host = name if machines.node else "127.0.0.1"  # where machine 0 hears of the others without a network, too
    nobody = f"nobody answers as machine 0 at {name}:{port} within {machines.wait} seconds (LIGHTWEIGHT_WAIT)"
    with contextlib.ExitStack() as stack:
        with limit_time(machines.wait + GRACE, partial(end, nobody)):  # torch waits longer for what is no store
            wait_for_listener((host, port), machines.wait)
            store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=wait)
            connection = stack.enter_context(socket.create_connection((host, int(store.get(PORT))), machines.wait))
            connection.settimeout(None)
            expect_answers(connection, silence(machines))
            connection.sendall(bytes([machines.node]))
            word = receive(connection, 1)
            if word != WELCOME:
                raise InputError((word + receive(connection, 1024)).decode() or describe_absence(0, name))
        watch = Watch(connection, name, failure, end)
        try:
            yield
        except Exception as error:
            if _may_be_absence(error):
                watch.thread.join(silence(machines) + GRACE)
            raise
        else:
            watch.leave(None if failure.exists() else machines.wait)
        finally:
            watch.leave()


def _may_be_absence(error: Exception) -> bool:
    """Tell whether an error may come of the absence of another machine, so that news of it is worth waiting for."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousTimeoutError

    if isinstance(error, ChildFailedError):
        return error.get_first_failure()[1].exitcode >= 0  # or the system has ended a process of this machine
    return not isinstance(error, SignalException | RendezvousTimeoutError)


def silence(machines: Machines) -> int:
    """Return the seconds without an answer after which a machine has gone away."""
    return min(SILENCE, machines.wait)


def describe_surplus(node: int) -> str:
    """Describe in a line why a machine is turned away whose number another one has."""
    return f"machine {node} is here already: each needs its own LIGHTWEIGHT_NODE_RANK"


def describe_absence(node: int, host: str) -> str:
    """Describe in a line which machine has gone away, and how to go on."""
    rule = "the same command, on the same machines or on fewer, goes on at the last checkpoint"
    return f"machine {node} ({host}) has gone away: it has ended or is not reached; {rule}"
