"""bin/setup on a machine whose Python is too old, for somebody who is not root there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.rehearsal.story import ROOT


def setup(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    shutil.copytree(ROOT / "bin", tmp_path / "bundle/bin")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("dirname", "git", "ssh"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    for name, text in {"id": "echo 1000", "python3": '[ "$1" = --version ] && echo Python 3.10.12'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    command = ["/bin/sh", str(tmp_path / "bundle/bin/setup"), *words]
    return subprocess.run(command, env={"PATH": str(programs)}, capture_output=True, text=True)


def test_it_says_the_number(tmp_path: Path) -> None:
    done = setup(tmp_path)
    assert done.returncode == 1
    assert "Python 3.11 or newer with venv is needed, and this machine has Python 3.10.12" in done.stderr
    assert not (tmp_path / "bundle/.venv").exists()


def test_what_needs_root_says_so(tmp_path: Path) -> None:
    done = setup(tmp_path, "nft")
    assert (done.returncode, "missing" in done.stderr) == (1, False)
    assert "root is needed" in done.stderr
