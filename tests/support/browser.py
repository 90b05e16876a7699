"""A headless Chromium, driven through a pipe by the DevTools protocol: no driver, no port."""

import base64
import fcntl
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

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
PATIENCE = 60.0


class Page:
    """One tab. ``complaints`` holds what the page's console or its content policy said."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._rest, self._number, self._session = b"", 0, ""
        self.complaints: list[str] = []
        self._loaded = False
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, file: Path, width: int = 1200, height: int = 900, after: str = "") -> None:
        """Loads ``file`` in a window of this size and waits until its scripts have run; ``after``
        is what follows its name in the address."""
        self.resize(width, height)
        self.complaints.clear()
        self._loaded = False
        self._call("Page.navigate", url="about:blank")  # or another hash would load nothing
        while not self._loaded:
            self._read()
        self._loaded = False
        self._call("Page.navigate", url=file.resolve().as_uri() + after)
        while not self._loaded:
            self._read()

    def resize(self, width: int, height: int = 900) -> None:
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def run(self, script: str) -> Any:
        """The value of an expression in the page, or of what it promises, as JSON would hold it."""
        found = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def choose(self, control: str, value: str, event: str = "change") -> None:
        """Sets a control as a person does: its value, then its event."""
        self.run(
            f"{{ const c = document.getElementById({json.dumps(control)}); "
            f"c.value = {json.dumps(value)}; c.dispatchEvent(new Event({json.dumps(event)})); }}"
        )

    def on_paper(self, wanted: bool) -> None:
        """Takes the styles of print, or those of a screen."""
        self._call("Emulation.setEmulatedMedia", media="print" if wanted else "")

    def dark(self, wanted: bool) -> None:
        """Prefers dark pages, or light ones."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if wanted else "light"}]
        self._call("Emulation.setEmulatedMedia", features=features)

    def printed(self) -> int:
        """How many pages of A4 it is on paper."""
        found = self._call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
        return base64.b64decode(found["data"]).count(b"/Type /Page\n")

    def picture(self, file: Path) -> None:
        """Writes the whole page as PNG."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        found = self._call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") == self._number:
                if "error" in found:
                    raise AssertionError(f"{method}: {found['error']}")
                return found["result"]

    def _read(self) -> dict[str, Any]:
        """The next message; events that tests ask for are kept."""
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            if not select.select([self._answers], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError(f"the browser was silent for {PATIENCE:g} s")
            if not (part := os.read(self._answers, 1 << 20)):
                raise EOFError("the browser has gone")
            self._rest += part
        line, self._rest = self._rest.split(b"\0", 1)
        found = json.loads(line)
        self._loaded |= found.get("method") == "Page.loadEventFired"
        if found.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(found["params"]))
        return found


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page of a browser that ends with the block; ``profile`` is its empty folder."""
    theirs, commands = os.pipe()
    answers, ours = os.pipe()
    # DevTools reads from descriptor 3 and writes to 4; higher ones do not get in their way.
    given = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs, ours)]
    for end in (theirs, ours):
        os.close(end)
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--remote-debugging-pipe", f"--user-data-dir={profile}")  # fmt: skip
    child = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{given[0]} 4>&{given[1]}', "bash", CHROMIUM, *flags],
        pass_fds=given, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for end in given:
        os.close(end)
    try:
        yield Page(commands, answers)
    finally:
        child.kill()
        child.wait()
        os.close(commands)
        os.close(answers)
