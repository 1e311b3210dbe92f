"""Chromium without a window, driven through the two pipes of its debugging protocol: no driver, no port, no package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = "no chromium: apt-get install chromium"
PATIENCE = 120.0  # seconds for one answer: a busy machine starts Chromium slowly
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip
DESK, PHONE = (1280, 900), (390, 844)


class Browser:
    """One Chromium with one page. `problems` are the errors and warnings that the page's console showed."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        self._write, self._read, theirs = _pipes()
        command = [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]

        def take_pipes() -> None:
            os.dup2(theirs[0], 3)
            os.dup2(theirs[1], 4)

        silent = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=silent, stderr=silent, preexec_fn=take_pipes, pass_fds=(3, 4))
        for descriptor in theirs:
            os.close(descriptor)
        self._buffer, self._number, self._session = b"", 0, None
        self._events: list[dict[str, Any]] = []
        self.problems: list[str] = []
        page = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        """Ends the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def open(self, url: str, size: tuple[int, int] = DESK, dark: bool = False, scripts: bool = True) -> None:
        """Loads a page in a window of a size (CSS pixels) and a theme, with or without JavaScript."""
        width, height = size
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=size == PHONE,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.problems.clear()
        self._events.clear()
        failed = self.send("Page.navigate", url=url).get("errorText")
        assert failed is None, f"{url}: {failed}"
        self._wait_for("Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key, such as Tab, pressed and let go."""
        code, text = {"Tab": (9, ""), "Enter": (13, "\r")}[key]
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text, windowsVirtualKeyCode=code)

    def move_to(self, x: float, y: float) -> None:
        """Moves the mouse."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path: Path, whole: bool = True) -> None:
        """The page as a PNG file."""
        content = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(content))

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            said = self._receive()
            if said.get("id") == self._number:
                assert "error" not in said, (method, said["error"])
                return said["result"]

    def _wait_for(self, event: str) -> None:
        while not any(said["method"] == event for said in self._events):
            self._receive()

    def _receive(self) -> dict[str, Any]:
        """The next message; what the console shows is noted."""
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            content = os.read(self._read, 1 << 20)
            assert content, "Chromium has ended"
            self._buffer += content
        content, _, self._buffer = self._buffer.partition(b"\0")
        said: dict[str, Any] = json.loads(content)
        if "method" in said:
            self._events.append(said)
            self._note(said["method"], said["params"])
        return said

    def _note(self, event: str, details: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(details["exceptionDetails"])[:500])
        elif event == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(details["args"])[:500])
        elif event == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.problems.append(details["entry"]["text"])


def _pipes() -> tuple[int, int, tuple[int, int]]:
    """Where to write, where to read, and Chromium's two ends, which lie above those it will have."""
    their_read, ours_write = os.pipe()
    ours_read, their_write = os.pipe()
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in (their_read, their_write)]
    os.close(their_read)
    os.close(their_write)
    return ours_write, ours_read, (high[0], high[1])
