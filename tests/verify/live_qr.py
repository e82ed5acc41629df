"""bin/verify --live-qr: starts a WhatsApp session for one salon, and checks that a QR code comes."""

from __future__ import annotations

from tests.verify.plugin import Seen, component
from tests.verify.target import Target


@component("baileys", "{pm2} logs ai-admin-api --lines 50")
def test_a_qr_code_comes(target: Target, salon_id: int, seen: Seen) -> None:
    output = target.host.run(target.script("live_qr.sh", SALON=str(salon_id))).stdout.strip()
    assert output.startswith("QR"), f"no QR code came for salon {salon_id}: {output[:200] or 'no answer'}"
    seen(f"a QR code came for salon {salon_id}: {output.removeprefix('QR ')}")
