"""The worked example of CONTRIBUTING.md does what the page says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.converge.conftest import QUICK
from tests.rehearsal.host import Host
from tests.rehearsal.story import EVERYTHING, INVENTORY, ROOT, deploy, tokens

pytestmark = pytest.mark.slow
BLOCK = re.compile(r"^```python\n# ([\w/.]+)(?:, (after|in place of): ([^\n]+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def followed(folder: Path) -> list[str]:
    """A copy of the project with the page's blocks in it; returns the new files."""
    skipped = shutil.ignore_patterns(".*", "__pycache__", "*.log")
    shutil.copytree(ROOT, folder, ignore=skipped, symlinks=True)
    new = []
    for name, how, place, code in BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        file = folder / name
        if not how:
            assert not file.exists(), name
            new.append(name)
            file.write_text(code, encoding="utf-8")
            continue
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        [number] = [number for number, line in enumerate(lines) if line.strip().startswith(place)]
        kept = number + 1 if how == "after" else number
        file.write_text("".join([*lines[:kept], code, *lines[number + 1 :]]), encoding="utf-8")
    return new


def test_the_example_works(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    new = followed(folder)
    assert len(new) == 4
    for check in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy", "--no-error-summary"]):
        done = subprocess.run([sys.executable, "-m", *check, *new], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    first = deploy(host, *QUICK, root=folder, environment=tokens())
    assert (first.code, set(first.changed)) == (0, {*EVERYTHING, "Log folder"}), first.output
    assert "logs: mode 755 becomes 700" in first.output
    assert deploy(host, *QUICK, root=folder).changed == []

    host.ssh("chmod 755 /opt/ai-admin/logs")
    verify = [sys.executable, "-m", "tests.verify", INVENTORY, "--limit", host.name]
    red = subprocess.run(verify, cwd=folder, capture_output=True, text=True)
    assert red.returncode == 1, red.stdout
    assert "logs/ can be read by other users: mode 755" in red.stdout
    assert deploy(host, *QUICK, root=folder).changed == ["Log folder"]
    assert subprocess.run(verify, cwd=folder, capture_output=True).returncode == 0
