"""The benchmark's verdict: a target that is missed is shown as missed, and only that one."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.report import CHANGING, CONTESTANTS, CONVERGING, FLEETS, PATIENT, ROUND_TRIPS, USUAL, Measured, Run

GOOD = {
    "quick check": 1.4,
    "by hand": 0.8,
    "bin/verify": 1.8,
    "deploy.py": 1.2,
    "Ansible": 6.6,
    "Ansible with Mitogen": 4.6,
}


def measured(seconds: dict[str, float], **but: float) -> Measured:
    """A result that meets every target, but for what is named."""
    usual = {"cpu": 0.5, "host_cpu": 0.17, "wait": 4.3, "many": 4.0, "checks": 68, "memory": 60.0}
    usual |= {"token": 4.8, "their_token": 10.0, "patient_token": 10.0}  # seconds more than no change
    usual |= {"first": 9.5, "their_first": 13.0, "patient_first": 13.0}
    cpu, host_cpu, wait, many, checks, memory, *more = {**usual, **but}.values()

    def runs(name: str, extra: float = 0.0) -> list[Run]:
        output = f'[host] {{"restart_seconds":{wait}}}'
        idle = seconds["Ansible" if name == PATIENT else name]
        return [Run(idle + extra + step, cpu, memory, output, host_cpu) for step in (-0.1, 0.0, 0.1)]

    found = {("no change", each): {name: runs(name) for name in CONTESTANTS} for each in ROUND_TRIPS}
    for job, (ours, theirs, patient) in (("token arrival", more[:3]), ("first converge", more[3:])):
        extra = dict(zip(CHANGING, (ours, theirs, theirs, patient), strict=True))
        found[job, USUAL] = {name: runs(name, extra[name]) for name in CHANGING}
    for hosts in FLEETS:
        slower = seconds["deploy.py"] * (many - 1) if hosts == FLEETS[-1] else 0.0
        found["many hosts", hosts] = {name: runs(name, slower) for name in CONVERGING}
    return Measured(found, dict.fromkeys(CONTESTANTS, 1), int(checks), "v1")


def missed(result: Measured) -> list[str]:
    return [target.what for target in result.targets() if not target.met]


def test_all_met() -> None:
    result = measured(GOOD)
    assert missed(result) == []
    assert "✗" not in result.page() and result.page().count("✓") == len(result.targets())


@pytest.mark.parametrize(
    ("result", "what"),
    [
        (measured({**GOOD, "deploy.py": 1.3}), "no change: deploy.py to the quick check"),
        (measured({**GOOD, "Ansible": 5.9}), "no change: Ansible to deploy.py"),
        (measured({**GOOD, "Ansible with Mitogen": 4.1}), "no change: Ansible with Mitogen to deploy.py"),
        (measured({**GOOD, "bin/verify": 2.2}), "bin/verify to the quick check"),
        (measured(GOOD, cpu=0.61), "no change: CPU of the client"),
        (measured(GOOD, host_cpu=0.19), "no change: CPU of the host"),
        (measured(GOOD, token=5.4), "token arrival"),
        (measured(GOOD, their_token=8.0), "token arrival: Ansible to deploy.py"),
        (measured(GOOD, patient_token=8.0), f"token arrival: {PATIENT} to deploy.py"),
        (measured(GOOD, first=9.9), "first converge"),
        (measured(GOOD, their_first=11.0), "first converge: Ansible to deploy.py"),
        (measured(GOOD, patient_first=11.0), f"first converge: {PATIENT} to deploy.py"),
        (measured(GOOD, wait=3.5), "token arrival without the API's restart to no change"),
        (measured(GOOD, many=4.1), "30 hosts to one"),
        (measured(GOOD, checks=39), "bin/verify: checks"),
        (measured(GOOD, memory=251), "30 hosts: memory of the client"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missed_is_told(result: Measured, what: str) -> None:
    assert missed(result) == [what]
    assert f"✗ {what}" in result.page()


def test_the_chart_is_an_image_of_every_bar() -> None:
    root = ElementTree.fromstring(measured(GOOD).chart())  # noqa: S314 -- our own text, no stranger's
    bars = [each for each in root.iter() if each.tag.endswith("rect") and each.get("fill") != "white"]
    assert len(bars) == len(ROUND_TRIPS) * len(CONTESTANTS) + 2 * len(CHANGING)


@pytest.mark.parametrize("output", ['{"restart_seconds":3.3}', '{"restart_seconds": 3.3}'])
def test_how_long_the_restart_took_is_read_from_the_output(output: str) -> None:
    assert Run(1.0, 0.5, 60.0, output).restart_seconds == 3.3
