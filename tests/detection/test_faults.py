"""Each fault is planted: exactly its checks fail, and its row shows the cause and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.detection.conftest import Verified, altered, shell, verify
from tests.detection.faults import FAULTS, Fault
from tests.rehearsal.host import Host
from tests.rehearsal.story import ROOT


def test_without_a_fault_all_ten_are_ready(sound: Verified) -> None:
    assert sound.code == 0, sound.output
    assert [row["status"] for row in sound.table["rows"]] == ["ready"] * 10
    typed = sum(fault.typed for fault in FAULTS)
    counts = (
        f"{sound.table['checks']} checks; {len(FAULTS)} planted faults, {typed} of them put right by typing the remedy"
    )
    assert counts in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(ver: Host, sound: Verified, fault: Fault, tmp_path: Path) -> None:
    del sound  # verified before the first fault
    inventory = altered(tmp_path, verify_address=ver.gateway if fault.where == "dns" else ver.address)
    try:
        shell(ver, fault.plant, fault.where)
        found = verify(ver, tmp_path, inventory=inventory)
        rows = [row for row in found.table["rows"] if row["component"] in fault.rows]
        actions = [action for row in rows for action in row["actions"] if fault.remedy in action]
        if fault.typed and actions:
            shell(ver, f"cd /; {actions[0]}; on 3000", "host")
            healed = verify(ver, tmp_path, inventory=inventory)
            assert healed.code == 0, healed.output
    finally:
        shell(ver, fault.undo, fault.where)
    red = found.checks("failing", "pending")
    assert (found.code, set(red)) == (fault.code, set(fault.fails)), found.output
    assert set(red.values()) == set(fault.rows)
    assert bool(found.checks("not checked")) == fault.hides, found.output
    assert any(fault.cause in evidence for row in rows for evidence in row["evidence"]), found.output
    assert actions, found.output


@pytest.mark.slow
def test_afterwards_the_host_has_no_fault(ver: Host, tmp_path: Path) -> None:
    found = verify(ver, tmp_path)
    assert found.code == 0, found.output


def test_every_check_can_fail(sound: Verified) -> None:
    """Between them, the planted faults make every check and every row fail."""
    assert {check for fault in FAULTS for check in fault.fails} == set(sound.checks())
    assert {row for fault in FAULTS for row in fault.rows} == set(sound.checks().values())
