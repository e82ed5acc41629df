"""Each fault is planted: exactly its checks fail, and its row shows the cause and the remedy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest
from _pytest.mark import ParameterSet

from tests.detection.conftest import Verified, altered, shell, verify
from tests.detection.faults import FAULTS, Fault
from tests.rehearsal.host import Host
from tests.rehearsal.story import ROOT, deploy
from tests.verify.table import command_of

VERBS = ("install", "mount", "open", "write")  # at the beginning of a remedy in words; programs have these names too


def test_without_a_fault_all_ten_are_ready(sound: Verified) -> None:
    assert sound.code == 0, sound.output
    assert [row["status"] for row in sound.table["rows"]] == ["ready"] * 10
    typed = sum(not fault.person for fault in FAULTS)
    counts = (
        f"{sound.table['checks']} checks; {len(FAULTS)} planted faults, {typed} of them put right by typing the remedy"
    )
    assert counts in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def planted(ver: Host, sound: Verified, fault: Fault, tmp_path: Path) -> Iterator[tuple[Verified, str]]:
    """What verification finds, and the inventory it was given. Undone afterwards."""
    del sound  # verified before the first fault
    known = {"address": ver.address, "gateway": ver.gateway, "six": ver.six}
    address = Template(fault.address).substitute(known)
    own = {"verify_ca": str(ver.root / fault.ca)} if fault.ca else {}
    inventory = altered(tmp_path, verify_address=address, **own)
    try:
        shell(ver, fault.plant, fault.where)
        yield verify(ver, tmp_path, inventory=inventory), inventory
    finally:
        shell(ver, fault.undo, fault.where)


def _with_marks() -> Iterator[ParameterSet]:
    """Those that make a check fail which none before them does; the others, other ways to the same checks, are for
    bin/test --all."""
    failed: set[str] = set()
    for fault in FAULTS:
        marks = [pytest.mark.long] if {*fault.fails} <= failed else []
        yield pytest.param(fault, id=fault.name, marks=marks)
        failed |= {*fault.fails}


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*_with_marks()])
def test_fault(fault: Fault, planted: tuple[Verified, str]) -> None:
    found, _ = planted
    rows = [row for row in found.table["rows"] if row["component"] in fault.rows]
    red = found.checks("failing", "pending")
    assert (found.code, set(red)) == (fault.code, set(fault.fails)), found.output
    assert set(red.values()) == set(fault.rows)
    assert bool(found.checks("not checked")) == fault.hides, found.output
    assert any(fault.cause in evidence for row in rows for evidence in row["evidence"]), found.output
    assert any(fault.remedy in action for row in rows for action in row["actions"]), found.output
    unplaced = [step["command"] for step in found.table["next"] if not step["place"]]
    programs = [each for each in unplaced if shutil.which(each.split()[0]) and each.split()[0] not in VERBS]
    assert programs == [], f"it does not say where to type that:\n{found.output}"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("fault", [each for each in FAULTS if not each.person], ids=lambda fault: fault.name)
def test_remedy(ver: Host, planted: tuple[Verified, str], tmp_path: Path) -> None:
    """What the table says to do puts it right."""
    found, inventory = planted
    typed(ver, found)
    healed = verify(ver, tmp_path, inventory=inventory)
    assert healed.code == 0, f"{found.output}\nand after that was typed:\n{healed.output}"


def typed(host: Host, found: Verified) -> None:
    """Type what the table says to do, in its order."""
    for step in found.table["next"]:
        command = command_of(step["command"], found.table["deploy"])[1]
        if step["place"] == "on your laptop":
            done = deploy(host, "--data", "settle_time=0")
            assert done.code == 0 and done.changed, f"{found.output}\n{done.output}"
        else:
            assert step["place"] == "on the host", found.output
            shell(host, f"cd /; {command}; on 3000", "host")


@pytest.mark.slow
def test_a_name_that_does_not_resolve_is_no_closed_port(ver: Host, sound: Verified, tmp_path: Path) -> None:
    del sound
    found = verify(ver, tmp_path, inventory=altered(tmp_path, domain="nowhere.invalid", verify_address=""))
    row = next(row for row in found.table["rows"] if row["component"] == "HTTPS/SSL")
    assert "DNS has no address for nowhere.invalid" in row["evidence"], found.output
    assert "firewall" not in str(row["actions"]) and "port 80" not in str(row["evidence"]), found.output


@pytest.mark.slow
def test_afterwards_the_host_has_no_fault(ver: Host, tmp_path: Path) -> None:
    found = verify(ver, tmp_path)
    assert found.code == 0, found.output


def test_every_check_can_fail(sound: Verified) -> None:
    """Between them, the planted faults make every check and every row fail."""
    assert {check for fault in FAULTS for check in fault.fails} == set(sound.checks())
    assert {row for fault in FAULTS for row in fault.rows} == set(sound.checks().values())
