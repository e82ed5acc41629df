"""bin/verify --drift: 0 when the host is as deploy would make it, else 3 and the name of each difference."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.detection.conftest import Verified, altered, drift, shell
from tests.rehearsal.host import Host


@pytest.mark.slow
def test_no_drift(ver: Host, sound: Verified) -> None:
    del sound
    code, output = drift(ver)
    assert code == 0, output
    assert output.splitlines()[0] == f"{ver.name}: is as deploy would make it"
    assert "Connected" not in output


@pytest.mark.slow
def test_an_inventory_may_print(ver: Host, sound: Verified, tmp_path: Path) -> None:
    del sound
    inventory = Path(altered(tmp_path))
    inventory.write_text(f"print('{{the inventory}}')\n{inventory.read_text()}")
    code, output = drift(ver, str(inventory))
    assert (code, output.splitlines()[0]) == (0, f"{ver.name}: is as deploy would make it"), output


@pytest.mark.slow
def test_drift_is_named(ver: Host) -> None:
    try:
        shell(ver, "edit $site 's,\\^~ /socket.io/,/elsewhere/,'; touch $app/.env", "host")
        code, output = drift(ver)
    finally:
        shell(ver, "back $site; reload; restart", "host")
    assert code == 3, output
    assert output.startswith(f"{ver.name}: differs in nginx site, nginx reload, API restart\n")
    assert "the locations it lacks" in output and "older than its files" in output


@pytest.mark.slow
def test_a_plan_that_cannot_be_made(ver: Host) -> None:
    try:
        shell(ver, "echo 'bogus on;' > /etc/nginx/conf.d/broken.conf", "host")
        code, output = drift(ver)
    finally:
        shell(ver, "rm /etc/nginx/conf.d/broken.conf; reload", "host")
    assert (code, output) == (1, "")
