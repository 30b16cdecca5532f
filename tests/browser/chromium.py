"""A headless Chromium, driven by its own protocol through two pipes: no package is needed beside the browser.

https://chromedevtools.github.io/devtools-protocol/ documents the methods.
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--force-color-profile=srgb", "--font-render-hinting=none", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)  # fmt: skip
PATIENCE = 60.0  # seconds for one answer


def find_chromium() -> str | None:
    """Return the path of a Chromium; $CHROMIUM names another one than those on the path."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def start_chromium(profile: Path) -> Iterator["Chromium"]:
    """Start a browser whose profile is a folder, and end it with everything that it started."""
    binary = find_chromium()
    assert binary
    to_browser, from_browser = os.pipe(), os.pipe()
    pipes = to_browser[0], from_browser[1]

    def connect() -> None:  # it reads from descriptor 3 and writes to 4
        os.setsid()
        copies = [os.dup(pipe) for pipe in pipes]
        for copy, wanted in zip(copies, (3, 4), strict=True):
            os.dup2(copy, wanted)

    command = [binary, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        command, close_fds=False, preexec_fn=connect, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for pipe in pipes:
        os.close(pipe)
    try:
        yield Chromium(to_browser[1], from_browser[0])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(to_browser[1])
        os.close(from_browser[0])


class Chromium:
    """One tab of a browser; `events` holds what it has told and nobody has asked for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._rest, self._number = to_browser, from_browser, b"", 0
        self.events: list[dict[str, Any]] = []
        self.session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its result. Raises AssertionError with its error."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _receive(self, patience: float = PATIENCE) -> dict[str, Any]:
        end = time.monotonic() + patience
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0, end - time.monotonic()))
            assert ready, f"Chromium said nothing for {patience} s"
            self._rest += os.read(self._from, 2**20)
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, url: str) -> None:
        """Open a page and wait until everything that it names is loaded."""
        self.events.clear()
        self.send("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, code: str) -> Any:
        """Evaluate an expression in the page, after promises, and return its value."""
        done = self.send("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait_for(self, condition: str, seconds: float = PATIENCE) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.05)

    def resize(self, width: int, height: int, scale: float = 1, *, mobile: bool = False) -> None:
        """Set the size of the window in CSS pixels, and how many of the screen make one."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    def emulate(self, medium: str = "screen", scheme: str = "light") -> None:
        """Show the page on a medium, and in a colour scheme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", media=medium, features=features)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Let the mouse do something at a point: `mousePressed`, `mouseMoved` or `mouseReleased`."""
        button = {"button": "left", "buttons": 0 if kind == "mouseReleased" else 1, "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def screenshot(self, path: Path, *, full: bool = True) -> None:
        """Save the whole page, or what the window shows, as PNG."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        if full:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def print_to_pdf(self, path: Path) -> None:
        """Print the page on A4."""
        printed = self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)
        path.write_bytes(base64.b64decode(printed["data"]))

    def complaints(self) -> list[str]:
        """List what the page wrote to the console as errors or warnings, exceptions, and failed requests."""
        self.evaluate("0")  # collects the events until now
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(json.dumps(params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif method == "Network.loadingFailed":
                found.append(f"{params['type']} {params['errorText']}")
        return found

    def requests(self) -> list[str]:
        """List the addresses that the page has asked for, without those of data inside it."""
        self.evaluate("0")
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        urls = [event["params"]["request"]["url"] for event in sent]
        return [url for url in urls if not url.startswith("data:")]
