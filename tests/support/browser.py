"""A real browser: Debian's Chromium without a window, driven by its own protocol over a pipe.

Protocol: https://chromedevtools.github.io/devtools-protocol/. Input goes through the browser's own mouse and keyboard.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PATIENCE_S = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable() -> str:
    """Path of a Chromium; installed with apt where we are root and there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "-qq", "-y", "--no-install-recommends", "install", "chromium", "fonts-dejavu-core"]
        for argv in (["apt-get", "-qq", "update"], install):
            subprocess.run(argv, check=True, timeout=900, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        found = shutil.which("chromium")
    if found is None:
        raise FileNotFoundError(
            "chromium is needed: install it (Debian, Ubuntu: apt-get install chromium), or be root."
        )
    return found


class Page:
    """One tab. `dialogs`: what scripts made pop up; `asked`: every address anything was fetched from."""

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._answers, self._rest, self._number = to, answers, b"", 0
        self._session: str | None = None
        self.dialogs: list[str] = []
        self.asked: list[str] = []
        self._loads = 0
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        before = self._loads
        self._call("Page.navigate", url=url)
        self._loaded(before)

    def evaluate(self, expression: str) -> Any:
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def text(self) -> str:
        return str(self.evaluate("document.body.innerText"))

    def address(self) -> str:
        return str(self.evaluate("location.href"))

    def type(self, selector: str, text: str) -> None:
        self._press(selector)
        self._call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Press what leads to another page, and wait for that."""
        before = self._loads
        self._press(selector)
        self._loaded(before)

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def picture(self, file: Path) -> None:
        """A PNG of the whole page, however long."""
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def _press(self, selector: str) -> None:
        place = f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
        place += " e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
        place += " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        x, y = self.evaluate(place)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _loaded(self, before: int) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while self._loads == before:
            assert time.monotonic() < deadline, "the page did not load"
            self._heed(self._read(deadline))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            told = self._read(deadline)
            if told.get("id") == self._number:
                assert "error" not in told, (method, told)
                return dict(told["result"])
            self._heed(told)

    def _heed(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Page.loadEventFired":
                self._loads += 1
            case "Page.javascriptDialogOpening":
                self.dialogs.append(event["params"]["message"])
                dismiss = {"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": False}}
                os.write(self._to, json.dumps({**dismiss, "sessionId": self._session}).encode() + b"\0")
            case "Network.requestWillBeSent":
                self.asked.append(event["params"]["request"]["url"])
            case _:
                pass

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self._answers, 1 << 20)
            assert piece, "the browser has ended"
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page in a fresh browser, which is gone afterwards."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    argv = [
        executable(),
        "--headless=new",
        "--remote-debugging-pipe",
        "--no-first-run",
        "--disable-gpu",
        "--no-sandbox",
    ]
    argv += ["--disable-dev-shm-usage", "--disable-background-networking", f"--user-data-dir={folder / 'profile'}"]
    script = f'exec "$@" 3<&{to_read} 4>&{from_write}'
    with (folder / "chromium.log").open("wb") as log:
        child = subprocess.Popen(
            ["bash", "-c", script, "bash", *argv, "about:blank"],
            pass_fds=(to_read, from_write),
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "HOME": str(folder)},
        )
    os.close(to_read)
    os.close(from_write)
    try:
        yield Page(to_write, from_read)
    finally:
        os.close(to_write)
        os.close(from_read)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, 9)
        child.wait(240)
