"""Machines that watch over each other, as connections of this process: who goes away is told to all others."""

import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from lightweight.core.errors import InputError
from lightweight.execution import watch
from lightweight.execution.machines import Machines, expect_answers
from lightweight.execution.watch import FINISHED, PORT, WELCOME, Roll, Watch, describe_absence, silence, watch_machines

LINE = (
    "machine 1 (10.0.0.2) has gone away: it has ended or is not reached; "
    "the same command, on the same machines or on fewer, goes on at the last checkpoint"
)


def make_machines(node: int = 0, wait: int = 300) -> Machines:
    return Machines(processes=2, nodes=3, node=node, rendezvous="10.0.0.1:29400", wait=wait)


class Place:
    """Where three machines meet."""

    def __init__(self) -> None:
        self.roll = Roll(make_machines())
        self.sockets: list[socket.socket] = []
        self.threads: list[threading.Thread] = []

    def come(self, first_word: bytes) -> socket.socket:
        """The end of a connection that a machine of 10.0.0.2 holds."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            machine = socket.create_connection(listener.getsockname(), 10)
            connection, _ = listener.accept()
        machine.sendall(first_word)
        self.sockets += [machine, connection]
        self.threads.append(threading.Thread(target=self.roll.attend, args=(connection, "10.0.0.2")))
        self.threads[-1].start()
        return machine

    def enter(self, number: int) -> socket.socket:
        """The same, of a machine that is welcome."""
        machine = self.come(bytes([number]))
        machine.settimeout(10)
        assert machine.recv(1) == WELCOME
        return machine


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    for machine in place.sockets[::2]:
        machine.close()
    for thread in place.threads:
        thread.join(10)
    for connection in place.sockets:
        connection.close()


def hears_nothing(machine: socket.socket) -> bool:
    machine.settimeout(0.2)
    with pytest.raises(TimeoutError):
        machine.recv(1)
    machine.settimeout(10)
    return True


def test_a_line_names_the_machine_that_goes_away_and_says_how_to_go_on():
    assert describe_absence(1, "10.0.0.2") == LINE


def test_all_others_hear_once_which_machine_goes_away_also_who_comes_later(place):
    first, second = place.enter(0), place.enter(1)
    assert hears_nothing(first)
    second.close()
    assert first.recv(1024) == LINE.encode()
    third = place.come(b"\2")
    assert third.recv(1024) == LINE.encode()
    third.close()
    assert hears_nothing(first)


def test_the_machine_that_hosts_is_named_by_the_address_of_the_rendezvous(place):
    first, second = place.enter(0), place.enter(1)
    assert hears_nothing(second)
    first.close()
    assert second.recv(1024) == describe_absence(0, "10.0.0.1").encode()


def check_that_all_leave_after_the_last(machines):
    *others, last = machines
    for machine in others:
        machine.sendall(FINISHED)
    assert all(hears_nothing(machine) for machine in machines)
    last.sendall(FINISHED)
    assert [machine.recv(1024) for machine in machines] == [FINISHED] * len(machines)


def test_machines_leave_after_the_last_has_finished_and_not_before(place):
    machines = [place.enter(number) for number in range(3)]
    check_that_all_leave_after_the_last(machines)


def test_nobody_misses_a_machine_that_has_finished_or_a_stranger(place):
    first, second = place.enter(0), place.enter(1)
    second.sendall(FINISHED)
    for machine in (second, *[place.come(word) for word in (b"\3", b"GET / HTTP/1.1", b"")]):
        machine.close()
    assert hears_nothing(first)


def test_a_machine_whose_number_is_taken_is_told_so_and_neither_missed_nor_counted(place):
    machines = [place.enter(0), place.enter(1)]
    for word in (b"", FINISHED):
        surplus = place.come(b"\1" + word)
        assert surplus.recv(1024) == b"machine 1 is here already: each needs its own LIGHTWEIGHT_NODE_RANK"
        surplus.close()
    machines.append(place.enter(2))
    check_that_all_leave_after_the_last(machines)


def test_a_machine_that_comes_again_after_it_went_away_hears_of_that(place):
    first, second = place.enter(0), place.enter(1)
    second.close()
    assert first.recv(1024) == LINE.encode()
    assert place.come(b"\1").recv(1024) == LINE.encode()


@pytest.fixture
def watching(monkeypatch, tmp_path):
    """A watch, the other end of its connection, its file for failures, and the lines by which it has ended."""
    monkeypatch.setattr(watch, "GRACE", 0.2)
    here, there = socket.socketpair()
    lines = queue.Queue()
    failure = tmp_path / "failure"
    own = Watch(here, "10.0.0.1", failure, lines.put)
    yield own, there, failure, lines
    own.leave()
    there.close()
    own.thread.join(10)
    here.close()


def test_a_watch_ends_by_the_line_that_it_hears(watching):
    _, there, _, lines = watching
    there.sendall(LINE.encode())
    assert lines.get(timeout=10) == LINE


def test_a_machine_ends_in_words_where_the_others_have_finished_without_it(watching):
    _, there, _, lines = watching
    there.sendall(FINISHED)
    assert lines.get(timeout=10) == "the other machines have finished without this one"


def test_a_watch_that_hears_no_more_names_the_machine_that_hosts(watching):
    _, there, _, lines = watching
    there.close()
    assert lines.get(timeout=10) == describe_absence(0, "10.0.0.1")


def test_a_failure_of_this_machine_is_told_in_place_of_the_absence_that_comes_of_it(watching):
    _, there, failure, lines = watching
    failure.write_text("The loss became nan")
    there.close()
    assert lines.get(timeout=10) == "The loss became nan"


def test_a_failure_of_this_machine_ends_the_watch_while_others_are_there(watching):
    _, _, failure, lines = watching
    failure.write_text("The loss became nan")
    assert lines.get(timeout=10) == "The loss became nan"


def test_nobody_is_missed_after_all_have_finished_or_this_machine_has_left(watching):
    own, there, _, lines = watching
    leaving = threading.Thread(target=own.leave, args=[10.0])
    leaving.start()
    assert there.recv(10) == FINISHED
    there.sendall(FINISHED)
    leaving.join(10)
    there.close()
    own.thread.join(10)
    assert lines.empty()


def test_a_machine_that_leaves_by_a_failure_is_missed_at_once_and_ends_by_its_own_line(watching):
    own, there, _, lines = watching
    own.leave()
    there.settimeout(10)
    assert there.recv(10) == b"", "the end of the connection"
    there.close()
    own.thread.join(10)
    assert lines.empty()


def test_a_machine_that_fails_as_others_go_away_ends_by_its_own_line_only(watching):
    own, there, _, lines = watching
    there.close()
    time.sleep(0.1)  # half of the grace
    own.leave()
    assert lines.empty()


@pytest.mark.parametrize(("wait", "seconds"), [(300, 90), (86_400, 90), (20, 20), (1, 1)])
def test_silence_is_borne_for_90_seconds_and_no_longer_than_anything_else(wait, seconds):
    assert silence(make_machines(wait=wait)) == seconds


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (b"machine 1 is here already", "machine 1 is here already"),
        (LINE.encode(), LINE),
        (b"", describe_absence(0, "127.0.0.1")),
    ],
)
def test_a_machine_that_is_not_welcome_ends_by_the_line_that_it_hears(tmp_path, answer, line):
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    machines = Machines(processes=1, nodes=2, node=1, rendezvous=f"127.0.0.1:{store.port}", wait=10)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store.set(PORT, str(listener.getsockname()[1]))

        def turn_away() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(10) == b"\1"
                connection.sendall(answer)

        thread = threading.Thread(target=turn_away)
        thread.start()
        with pytest.raises(InputError) as caught, watch_machines(machines, tmp_path / "failure", pytest.fail):
            pytest.fail("it has begun")
        thread.join(10)
    assert str(caught.value) == line


def test_a_listener_that_does_not_answer_is_waited_for_no_longer_than_said(monkeypatch, tmp_path):
    monkeypatch.setattr(watch, "GRACE", 0.2)
    lines = queue.Queue()
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        machines = Machines(processes=1, nodes=2, node=1, rendezvous=place, wait=1)

        def come() -> None:
            with pytest.raises(RuntimeError), watch_machines(machines, tmp_path / "failure", lines.put):
                pytest.fail("it has begun")

        thread = threading.Thread(target=come)
        thread.start()
        line = lines.get(timeout=10)
    thread.join(60)
    assert line == f"nobody answers as machine 0 at {place} within 1 seconds (LIGHTWEIGHT_WAIT)"
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize(("seconds", "pace"), [(90, 15), (20, 3), (1, 1)])
def test_a_connection_breaks_after_probes_without_an_answer_idle_or_not(seconds, pace):
    with socket.socket() as connection:
        expect_answers(connection, seconds)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        values = [connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
    assert values == [pace, pace, 5, 1000 * pace * 5]


@pytest.mark.parametrize(("code", "maybe"), [(1, True), (0, True), (-1, False), (-9, False)])
def test_news_of_an_absence_is_waited_for_unless_the_system_has_ended_a_process_of_this_machine(code, maybe):
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    failure = ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file="none")
    assert watch._may_be_absence(ChildFailedError("train", {0: failure})) == maybe


def test_news_of_an_absence_is_waited_for_after_an_error_but_not_after_a_signal_or_a_wait():
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.rendezvous import RendezvousTimeoutError

    assert watch._may_be_absence(RuntimeError("Connection closed by peer"))
    assert not watch._may_be_absence(SignalException("", signal.SIGTERM))
    assert not watch._may_be_absence(RendezvousTimeoutError())
