"""What verification says of the next boot is true: without the remedy the API does not come back, with it it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.detection.conftest import Verified, shell, verify
from tests.detection.faults import FAULTS, Fault
from tests.detection.test_faults import typed
from tests.rehearsal.host import Host

OF_THE_BOOT = ("saved while it was stopped", "the unit has another PM2_HOME", "the unit runs a pm2 that is gone")
RUNS = "pgrep -f /opt/ai-admin/src/index.js"


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault.name in OF_THE_BOOT], ids=lambda fault: fault.name
)
def test_the_api_comes_back_with_the_remedy_alone(ver: Host, sound: Verified, fault: Fault, tmp_path: Path) -> None:
    del sound
    shell(ver, fault.plant, fault.where)
    found = verify(ver, tmp_path)
    assert found.code == 1, found.output
    ver.power_cycle()  # returns when systemd has started all
    started = ver.ssh(RUNS, check=False)
    unit = ver.ssh("systemctl is-failed pm2-root", check=False).stdout.strip()
    shell(ver, "(pm2 resurrect; pm2 restart ai-admin-api) >/dev/null; on 3000; reload", "host")
    again = verify(ver, tmp_path)
    try:
        assert started.returncode == 1, started.stdout
        told = "its_unit_has_not_failed" in again.checks("failing", "not checked")
        assert (unit == "failed") == told, again.output
        typed(ver, again)
        ver.power_cycle()
        shell(ver, "on 3000", "host")
        healed = verify(ver, tmp_path)
        assert healed.code == 0, healed.output
    finally:
        shell(ver, fault.undo, fault.where)
