"""bin/verify --live-qr: starts a WhatsApp session for one salon, and checks that a QR code comes."""

from __future__ import annotations

from rules import JWT_SECRET
from tests.verify.plugin import Seen, component
from tests.verify.target import Target


@component("baileys", "{pm2} logs {app} --lines 50 --nostream")
def test_a_qr_code_comes(target: Target, salon_id: int, seen: Seen) -> None:
    place = {"folder": target.settings.app_dir, "domain": target.settings.domain, "address": target.site_address}
    output = str(target.program("qr.js", 40, **place, secret=JWT_SECRET, salon=salon_id))
    assert output.startswith("QR"), f"no QR code came for salon {salon_id}: {output[:200] or 'no answer'}"
    seen(f"a QR code came for salon {salon_id}: {output.removeprefix('QR ')}")
