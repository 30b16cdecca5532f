"""A cable between DVC and a server on this machine, which can be cut after so many bytes and mended."""

import contextlib
import math
import socket
import threading

CHUNK = 1 << 16


class Cable:
    """Carry whatever comes in at `port` to the port of a server and back, until it is cut."""

    def __init__(self, server: int) -> None:
        self.server = server
        self.left = math.inf  # bytes that still pass
        self.ends: list[socket.socket] = []
        self.port = 0  # any, the first time
        self.mend()

    def mend(self) -> None:
        self.left = math.inf
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=[self.listener], daemon=True).start()

    def cut(self) -> None:
        """Refuse new connections and break those that are open, as when the server's machine goes away."""
        self.left = 0
        for end in (self.listener, *self.ends):
            with contextlib.suppress(OSError):  # which has ended before
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.ends.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self.server))
                self.ends += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self.left -= len(data)
                if self.left <= 0:
                    self.cut()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
