"""Each fault that verification knows is planted: its row turns red, with cause and remedy, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rehearsal.host import Host
from tests.verify_faults.conftest import Verified, altered, shell, verify
from tests.verify_faults.faults import FAULTS, Fault


def test_without_a_fault_all_ten_are_ready(sound: Verified) -> None:
    assert sound.code == 0, sound.output
    assert [row["status"] for row in sound.table["rows"]] == ["ready"] * 10
    assert sound.table["checks"] >= 40


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(ver: Host, sound: Verified, fault: Fault, tmp_path: Path) -> None:
    del sound  # the host was sound before the first fault
    inventory = altered(tmp_path, verify_address=ver.gateway if fault.where == "dns" else ver.address)
    try:
        shell(ver, fault.plant, fault.where)
        found = verify(ver, tmp_path, inventory=inventory)
    finally:
        shell(ver, fault.undo, fault.where)
    red = found.checks("failing", "pending")
    assert (found.code, set(red)) == (fault.code, set(fault.fails)), found.output
    assert set(red.values()) == set(fault.rows)
    assert bool(found.checks("not checked")) == fault.hides, found.output
    rows = [row for row in found.table["rows"] if row["component"] in fault.rows]
    assert any(fault.cause in evidence for row in rows for evidence in row["evidence"]), found.output
    assert any(fault.remedy in action for row in rows for action in row["actions"]), found.output


@pytest.mark.slow
def test_after_all_of_them_the_host_is_sound(ver: Host, tmp_path: Path) -> None:
    found = verify(ver, tmp_path)
    assert found.code == 0, found.output


def test_every_check_can_fail(sound: Verified) -> None:
    """The planted faults turn red every check that there is, and every row."""
    assert {check for fault in FAULTS for check in fault.fails} == set(sound.checks())
    assert {row for fault in FAULTS for row in fault.rows} == set(sound.checks().values())
