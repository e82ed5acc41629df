"""npm packages: what is missing is installed, and nothing else in the tree moves."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.converge.conftest import APP, converge, differing, only, read, tree, write
from tests.rehearsal.host import Host

STEP = "npm packages"
MODULES = f"{APP}/node_modules"
BAILEYS = f"{MODULES}/@whiskeysockets/baileys"


def version(host: Host, folder: str) -> str:
    found: str = json.loads(read(host, f"{folder}/package.json"))["version"]
    return found


def loads(host: Host, package: str) -> bool:
    return host.ssh(f"cd {APP} && node -e 'require(\"{package}\")'", check=False).returncode == 0


def changed_outside(host: Host, before: dict[str, str], folder: str) -> set[str]:
    """What an install changed but for the package itself: package.json, the lock and every other package."""
    return {path for path in differing(before, tree(host, APP)) if not f"{path}/".startswith(f"{folder}/")}


@pytest.fixture(scope="module")
def before(host: Host) -> dict[str, str]:
    return tree(host, APP)


@pytest.fixture(autouse=True)
def stopped(host: Host) -> Iterator[None]:
    """The API is left to itself: its restart is test_pm2.py's. Nothing of a half-done install may stay."""
    yield
    assert host.ssh(f"find {APP} -maxdepth 1 -name '.ai-admin*'").stdout == ""


@pytest.mark.slow
def test_only_the_missing_package_is_installed(host: Host, before: dict[str, str]) -> None:
    host.ssh(f'mkdir {MODULES}/by-hand && echo \'{{"version": "0.0.1"}}\' > {MODULES}/by-hand/package.json')
    assert not loads(host, "socket.io")
    assert converge(host, runbook=only(STEP)).changed == [STEP]
    assert loads(host, "socket.io")
    lock = json.loads(read(host, f"{APP}/package-lock.json"))
    assert version(host, f"{MODULES}/socket.io") == lock["packages"]["node_modules/socket.io"]["version"]
    assert changed_outside(host, before, f"{MODULES}/socket.io") == {
        f"{MODULES}/by-hand",
        f"{MODULES}/by-hand/package.json",
    }
    host.ssh(f"rm -r {MODULES}/by-hand")


def test_npm_itself_agrees(host: Host) -> None:
    listed = host.ssh(f"cd {APP} && npm ls socket.io jsonwebtoken @whiskeysockets/baileys", check=False)
    assert listed.returncode == 0, listed.stdout + listed.stderr


@pytest.mark.slow
def test_half_removed_package_is_repaired(host: Host) -> None:
    host.ssh(f"rm -r {MODULES}/jws")
    before = tree(host, APP)
    assert not loads(host, "jsonwebtoken")
    assert converge(host, runbook=only(STEP)).changed == [STEP]
    assert loads(host, "jsonwebtoken")
    assert changed_outside(host, before, f"{MODULES}/jsonwebtoken") == set()


@pytest.mark.slow
def test_too_old_package_is_replaced(host: Host) -> None:
    manifest = json.loads(read(host, f"{BAILEYS}/package.json"))
    write(host, f"{BAILEYS}/package.json", json.dumps({**manifest, "version": "6.17.16"}))
    before = tree(host, APP)
    assert converge(host, runbook=only(STEP)).changed == [STEP]
    assert version(host, BAILEYS) == manifest["version"]
    assert loads(host, "@whiskeysockets/baileys")
    assert changed_outside(host, before, BAILEYS) == set()


@pytest.mark.slow
def test_package_that_no_lock_lists_is_installed(host: Host) -> None:
    lock = read(host, f"{APP}/package-lock.json")
    host.ssh(f"rm -r {APP}/package-lock.json {MODULES}/jsonwebtoken")
    before = tree(host, APP)
    assert converge(host, runbook=only(STEP)).changed == [STEP]
    assert loads(host, "jsonwebtoken")
    assert changed_outside(host, before, f"{MODULES}/jsonwebtoken") == set()
    write(host, f"{APP}/package-lock.json", lock)
