"""The only step with a side effect, for real: a QR code from the API, and as a picture on the onboarding page."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.detection.browser import browser
from tests.detection.conftest import Verified, shell, verify
from tests.rehearsal.host import Host, until

POOLS_OWN = re.compile(r"2@[\w+/=]{64}(,[\w+/=]{44}){3}")  # four fields, as WhatsApp Web has them


@pytest.mark.slow
def test_a_qr_code_comes_when_asked_for(ver: Host, sound: Verified, tmp_path: Path) -> None:
    found = verify(ver, tmp_path, "--live-qr", "962302")
    assert found.code == 0, found.output
    assert set(found.checks()) - set(sound.checks()) == {"a_qr_code_comes"}
    report = (tmp_path / "verify.json").read_text()
    assert re.search(r"a QR code came for salon 962302: \d+ characters in 4 fields", report)
    assert not POOLS_OWN.search(report)


@pytest.mark.slow
def test_it_fails_when_none_comes(ver: Host, tmp_path: Path) -> None:
    plant = "add $pool 'WhatsAppSessionPool.prototype.getQR = () => null;'; restart"
    try:
        shell(ver, plant, "host")
        found = verify(ver, tmp_path, "--live-qr", "962303")
    finally:
        shell(ver, "back $pool; restart", "host")
    assert found.checks("failing").keys() == {"a_qr_code_comes", "session_pool_method_works[getQR]"}
    assert "no QR code came for salon 962303: 200" in found.output


@pytest.mark.slow
def test_a_browser_shows_the_code(ver: Host, tmp_path: Path) -> None:
    """From the marketplace's redirect to a picture that a phone can scan."""
    page = "https://ai-admin.app"
    curl = "curl -sk --resolve ai-admin.app:443:127.0.0.1 -o /dev/null -w '%{redirect_url}'"
    asked = ver.ssh(f"{curl} '{page}/auth/yclients/redirect?salon_id=962304'")
    assert asked.stdout.startswith(f"{page}/marketplace/onboarding?token="), asked.stdout
    picture = tmp_path / "onboarding.png"
    with browser(tmp_path, f"MAP ai-admin.app {ver.address}") as driver:

        def shown() -> bool:
            found = driver.run("const qr = document.getElementById('qr'); return qr ? !qr.hidden : null")
            if (
                found is None
            ):  # nginx may still consider the API down: the previous test restarted it, less than 10 s ago
                driver.open(asked.stdout)
            return found is True

        until(120, "the QR code on the page", shown)
        picture.write_bytes(driver.screenshot())
    decoded = subprocess.run(["zbarimg", "--quiet", "--raw", str(picture)], capture_output=True, text=True)
    assert POOLS_OWN.fullmatch(decoded.stdout.strip()), f"no code in the picture: {decoded.stderr}"
