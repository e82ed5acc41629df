"""A headless Chromium, driven over WebDriver: https://www.w3.org/TR/webdriver2/"""

from __future__ import annotations

import base64
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.rehearsal.host import until

FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "window-size=480,900"),
)


class Driver:
    def __init__(self, url: str, capabilities: dict[str, Any]) -> None:
        answer = self._ask("POST", f"{url}/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.session = f"{url}/session/{answer['sessionId']}"

    def _ask(self, method: str, url: str, data: object = None) -> Any:
        answer = requests.request(method, url, json=data, timeout=60).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def open(self, url: str) -> None:
        self._ask("POST", f"{self.session}/url", {"url": url})

    def run(self, script: str) -> Any:
        return self._ask("POST", f"{self.session}/execute/sync", {"script": script, "args": []})

    def look(self, width: int, scheme: str, media: str = "screen") -> None:
        """At this width in px, light or dark, on a screen or in print: by Chrome's own protocol."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        how = {"media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]}
        for command, given in {"setDeviceMetricsOverride": metrics, "setEmulatedMedia": how}.items():
            ask = {"cmd": f"Emulation.{command}", "params": given}
            self._ask("POST", f"{self.session}/goog/cdp/execute", ask)

    def whole(self) -> bytes:
        """A picture of the whole page, as a PNG."""
        width, height = self.run("return [innerWidth, Math.ceil(document.body.getBoundingClientRect().bottom)]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        given = {"captureBeyondViewport": True, "format": "png", "clip": clip}
        ask = {"cmd": "Page.captureScreenshot", "params": given}
        return base64.b64decode(self._ask("POST", f"{self.session}/goog/cdp/execute", ask)["data"])

    def screenshot(self) -> bytes:
        return base64.b64decode(self._ask("GET", f"{self.session}/screenshot"))

    def close(self) -> None:
        self._ask("DELETE", self.session)


@contextmanager
def browser(profile: Path, resolver_rules: str) -> Iterator[Driver]:
    """With an empty profile in this folder, and names resolved by Chromium's own --host-resolver-rules."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [*FLAGS, f"user-data-dir={profile / 'profile'}", f"host-resolver-rules={resolver_rules}"]
    process = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(120, "chromedriver", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        driver = Driver(
            f"http://127.0.0.1:{port}", {"acceptInsecureCerts": True, "goog:chromeOptions": {"args": flags}}
        )
        try:
            yield driver
        finally:
            driver.close()
    finally:
        process.terminate()
        process.wait(60)
