"""A headless Chromium that is told what to do over two pipes (the DevTools protocol), without another package."""

from __future__ import annotations

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

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-pipe"
).split()


class Browser:
    """One tab.

    Attributes:
        complaints: what the console said: errors, warnings, uncaught exceptions, refusals by the policy.
    """

    def __init__(self, to_browser: int, from_browser: int, patience_s: float) -> None:
        self.complaints: list[str] = []
        self._to, self._from, self._patience_s = to_browser, from_browser, patience_s
        self._received = b""
        self._number = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def go(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Until the script's value is true."""
        give_up_s = time.monotonic() + self._patience_s
        while not self.value(script):
            if time.monotonic() > give_up_s:
                raise AssertionError(f"not within {self._patience_s} s: {script}; {self.complaints}")
            time.sleep(0.05)

    def press(self, key: str, code: int) -> None:
        text = {"Enter": "\r", " ": " "}.get(key)
        named = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        down = {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **down)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def picture(self, path: Path, width: int, height: int) -> None:
        import base64

        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self._take_note(answer)

    def _take_note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded":
            self.complaints.append(str(params["entry"]["text"]))
        elif event.get("method") == "Runtime.consoleAPICalled":
            self.complaints.append(str(params["args"]))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._from], [], [], self._patience_s)
            if not ready:
                raise AssertionError(f"the browser said nothing for {self._patience_s} s")
            piece = os.read(self._from, 1 << 20)
            if not piece:
                raise AssertionError("the browser is gone")
            self._received += piece
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)


@contextmanager
def browsing(folder: Path, patience_s: float = 120.0) -> Iterator[Browser]:
    """A browser with a profile in `folder`, closed in the end."""
    for_browser, to_browser = os.pipe()
    from_browser, of_browser = os.pipe()

    def give_pipes() -> None:
        # The browser reads 3 and writes 4; the ends it is given may have just these numbers.
        reading, writing = os.dup(for_browser), os.dup(of_browser)
        os.dup2(reading, 3)
        os.dup2(writing, 4)

    command = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    process = subprocess.Popen(
        command, preexec_fn=give_pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(for_browser)
    os.close(of_browser)
    try:
        yield Browser(to_browser, from_browser, patience_s)
    finally:
        process.terminate()
        process.wait()
        os.close(to_browser)
        os.close(from_browser)
