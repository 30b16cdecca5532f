"""DVC remotes to try: a shared folder, an S3 server and two SSH servers, on this machine.

Servers are reached by a cable that can be cut. What lies in a remote is read and damaged behind DVC's back.
"""

import asyncio
import getpass
import logging
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import asyncssh

from tests.contract import ROOT
from tests.faults.cable import Cable

PROGRAMS = ROOT / ".venv/remotes/bin"  # `make remotes` puts them there
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
BUCKET = "bucket"


@dataclass(frozen=True)
class Remote:
    """A place for artifacts: its address and settings for DVC, and the cable to it, if there is one.

    `folder` is where its objects lie.
    """

    url: str
    settings: dict[str, str]
    folder: Path
    cable: Cable | None = None

    def names(self) -> list[str]:
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in files)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        mode = path.stat().st_mode
        path.chmod(0o644)
        path.write_bytes(content)
        path.chmod(mode)  # which DVC leaves without write permission, and takes for a sign that nothing was written

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()


class Bucket(Remote):
    """A remote whose objects lie in a bucket of an S3 server."""

    def names(self) -> list[str]:
        tree = ElementTree.fromstring(self._ask("GET", "?list-type=2&prefix=dvc/"))
        return [key.text.removeprefix("dvc/") for key in tree.iterfind(".//{*}Key")]

    def read(self, name: str) -> bytes:
        return self._ask("GET", f"/dvc/{name}")

    def write(self, name: str, content: bytes) -> None:
        self._ask("PUT", f"/dvc/{name}", content)

    def remove(self, name: str) -> None:
        self._ask("DELETE", f"/dvc/{name}")

    def _ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        headers = {"Authorization": "AWS any:any"} | ({"Content-Type": "application/octet-stream"} if content else {})
        address = f"http://127.0.0.1:{self.cable.server}/{BUCKET}{path}"
        with urllib.request.urlopen(urllib.request.Request(address, content, headers, method=method)) as answer:
            return answer.read()


@contextmanager
def shared_folder(scratch: Path) -> Iterator[Remote]:
    """A folder that all machines see."""
    yield Remote(str(scratch / "store"), {}, scratch / "store")


@contextmanager
def s3_moto(scratch: Path) -> Iterator[Remote]:
    """The S3 server of moto, which keeps objects in memory."""
    with program(scratch, lambda port: [PROGRAMS / "moto_server", "-H", "127.0.0.1", "-p", port]) as port:
        cable = Cable(port)
        settings = {"endpointurl": f"http://127.0.0.1:{cable.port}", "region": "us-east-1"}
        settings |= {"access_key_id": "any", "secret_access_key": "any"}
        remote = Bucket(f"s3://{BUCKET}/dvc", settings, scratch, cable)
        remote._ask("PUT", "")
        yield remote


@contextmanager
def ssh_asyncssh(scratch: Path) -> Iterator[Remote]:
    """The SSH server of asyncssh, which serves files and no shell."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns at length of a cable that is cut
    host, user = make_key(scratch / "host"), make_key(scratch / "user")
    keys = asyncssh.import_authorized_keys(user.with_suffix(".pub").read_text())
    loop = asyncio.new_event_loop()
    options = {"server_host_keys": [host], "authorized_client_keys": keys, "sftp_factory": True}
    server = loop.run_until_complete(asyncssh.listen("127.0.0.1", 0, **options))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield behind_ssh(scratch, server.get_port())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(server.wait_closed())
        loop.close()


@contextmanager
def ssh_openssh(scratch: Path) -> Iterator[Remote]:
    """OpenSSH's sshd with keys of its own."""
    host, user = make_key(scratch / "host"), make_key(scratch / "user")
    options = {"ListenAddress": "127.0.0.1", "HostKey": host, "AuthorizedKeysFile": user.with_suffix(".pub")}
    options |= {"PidFile": "none", "StrictModes": "no", "UsePAM": "no", "Subsystem": "sftp internal-sftp"}
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    with program(scratch, lambda port: [SSHD, "-D", "-e", "-f", "/dev/null", "-p", port, *words]) as port:
        yield behind_ssh(scratch, port)


def make_key(path: Path) -> Path:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(path)
    path.chmod(0o600)
    key.write_public_key(path.with_suffix(".pub"))
    return path


def behind_ssh(scratch: Path, port: int) -> Remote:
    cable, store = Cable(port), scratch / "store"
    settings = {"user": getpass.getuser(), "keyfile": str(scratch / "user")}
    return Remote(f"ssh://127.0.0.1:{cable.port}{store}", settings, store, cable)


@contextmanager
def program(scratch: Path, command: Callable[[int], list]) -> Iterator[int]:
    """Run a server on a free port, which the command is made of, until the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (scratch / "server.log").open("w") as log:
        process = subprocess.Popen([*map(str, command(port))], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        else:
            raise AssertionError((scratch / "server.log").read_text())
        yield port
    finally:
        process.terminate()
        process.wait()


REMOTES: dict[str, Callable[[Path], AbstractContextManager[Remote]]] = {
    "folder": shared_folder,
    "s3-moto": s3_moto,
    "ssh-asyncssh": ssh_asyncssh,
    "ssh-openssh": ssh_openssh,
}
