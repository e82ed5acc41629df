"""A host that the version before converged: its notes, fingerprints, backups and ledger are understood by this one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.converge.conftest import BACKUPS, QUICK, tree
from tests.rehearsal.host import Host
from tests.rehearsal.story import EVERYTHING, ROOT, deploy, tokens

BEFORE = "c58db06b9da091c82afd5b9770d3844c5adcfd38"  # the last one whose programs on the host were JavaScript

# What it had left undone, and nothing else: the application's role could not use the tables that postgres had made, the
# routes call a method that the session pool lacked, a regex location could take what is ours.
LEFT_OUT = ["Database migration", "Application source", "nginx site", "nginx reload", "API restart"]


@pytest.fixture(scope="module")
def bundle_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a .venv of its own."""
    folder = tmp_path_factory.mktemp("before")
    archive = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    subprocess.run(["sh", "bin/venv", sys.executable, ".", "requirements.lock", "pyinfra"], cwd=folder, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.long
def test_after_the_upgrade(host: Host, bundle_before: Path) -> None:
    own = tokens()
    first = deploy(host, *QUICK, root=bundle_before)
    assert (first.code, first.changed) == (0, EVERYTHING), first.output
    second = deploy(host, *QUICK, root=bundle_before, environment=own)
    assert (second.code, second.changed) == (0, ["Secrets in .env", "API restart"]), second.output

    now = deploy(host, *QUICK, environment=own)
    assert (now.code, now.changed) == (0, LEFT_OUT), now.output
    assert re.findall("migration: .*", now.output) == [
        "migration: ai_admin gets the rights to use marketplace_events, marketplace_tokens"
    ]
    again = deploy(host, *QUICK, environment=own)
    assert (again.code, again.changed) == (0, []), again.output

    env = tree(host, "/opt/ai-admin")["/opt/ai-admin/.env"]
    undo = f"undo={host.ssh(f'ls {BACKUPS}').stdout.split()[1]}"
    back = deploy(host, *QUICK, "--data", undo, runbook=(ROOT / "rollback.py").read_text(encoding="utf-8"))
    assert (back.code, back.changed) == (0, ["Rollback"]), "its backups are understood too"
    assert tree(host, "/opt/ai-admin")["/opt/ai-admin/.env"] != env
    assert deploy(host, *QUICK, environment=own).changed == ["Secrets in .env", "API restart"]
    assert tree(host, "/opt/ai-admin")["/opt/ai-admin/.env"] == env
