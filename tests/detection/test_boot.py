"""What verification says of the next boot is true: without the remedy the API does not come back, with it it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.detection.conftest import Verified, shell, verify
from tests.detection.faults import FAULTS, Fault
from tests.rehearsal.host import Host

OF_THE_BOOT = ("saved while it was stopped", "the unit has another PM2_HOME")


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault.name in OF_THE_BOOT], ids=lambda fault: fault.name
)
def test_the_api_comes_back_with_the_remedy_alone(ver: Host, sound: Verified, fault: Fault, tmp_path: Path) -> None:
    del sound
    shell(ver, fault.plant, fault.where)
    try:
        found = verify(ver, tmp_path)
        [action] = [action for row in found.table["rows"] for action in row["actions"]]
        ver.power_cycle()  # returns when systemd has started all
        started = ver.ssh("pgrep -f ai-admin/src/index.js", check=False)
    finally:
        shell(ver, fault.undo.replace("pm2 save", ":"), fault.where)
        shell(ver, "systemctl restart pm2-root; pm2 restart ai-admin-api >/dev/null; on 3000; pm2 save", "host")
    assert started.returncode == 1, started.stdout
    shell(ver, fault.plant, fault.where)
    shell(ver, f"cd /; {action}", "host")
    ver.power_cycle()
    shell(ver, "on 3000", "host")
    healed = verify(ver, tmp_path)
    assert healed.code == 0, healed.output
