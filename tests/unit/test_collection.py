"""A bare `pytest` stays on this machine: what verifies a real host is not collected by it."""

from __future__ import annotations

import subprocess
import sys

from tests.unit.conftest import ROOT


def collected(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "--quiet", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line]


def test_a_bare_pytest_collects_nothing_that_verifies() -> None:
    files = set(collected())
    assert "tests/unit/test_collection.py" in files
    assert not [file for file in files if file.startswith("tests/verify/")]
