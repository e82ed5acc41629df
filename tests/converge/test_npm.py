"""npm packages: what is missing is installed, and nothing else in the tree moves."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.converge.conftest import APP, apps, converge, differing, only, read, refuse, tree, without, write
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
    assert host.ssh(f"find {APP} {MODULES}/ -maxdepth 1 -name '.ai-admin*'").stdout == ""


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


# --- real baileys imports `long`, which it does not list


@pytest.fixture(scope="module")
def never_had_baileys(host: Host) -> dict[str, str]:
    """The tree without baileys, and without all that npm put beside it for its sake."""
    host.ssh(f"cd {APP} && npm uninstall --no-save --no-audit --no-fund @whiskeysockets/baileys")
    assert not loads(host, "long")
    return tree(host, APP)


@pytest.mark.slow
def test_a_tree_that_never_had_it(host: Host, never_had_baileys: dict[str, str]) -> None:
    assert converge(host, runbook=only(STEP)).changed == [STEP]
    assert loads(host, "@whiskeysockets/baileys")
    lock = json.loads(read(host, f"{APP}/package-lock.json"))["packages"]
    assert version(host, BAILEYS) == lock["node_modules/@whiskeysockets/baileys"]["version"]
    assert version(host, f"{BAILEYS}/node_modules/pino") == lock["node_modules/pino"]["version"]
    scope = {BAILEYS.rpartition("/")[0]} - never_had_baileys.keys()
    assert changed_outside(host, never_had_baileys, BAILEYS) == scope
    assert converge(host, runbook=only("API restart")).changed == ["API restart"]
    assert host.ssh("curl -sf localhost:3000/health").stdout


@pytest.mark.slow
@pytest.mark.usefixtures("never_had_baileys")
def test_a_lock_that_needs_a_git_host(host: Host) -> None:
    """As baileys rc.3 does. The registry has another version in range, and the rest of the lock stays."""
    text = read(host, f"{APP}/package-lock.json")
    lock, git = json.loads(text), "git.invalid/whiskeysockets/libsignal-node"
    packages = lock["packages"]
    needs = packages["node_modules/@whiskeysockets/baileys"]["dependencies"]
    needs = {**needs, "libsignal": f"git+https://{git}"}
    packages["node_modules/@whiskeysockets/baileys"] = {"version": "7.0.0-rc.3", "dependencies": needs}
    packages["node_modules/libsignal"] = {"version": "2.0.1", "resolved": f"git+ssh://git@{git}.git#1c30d7d7"}
    write(host, f"{APP}/package-lock.json", json.dumps(lock))
    host.ssh(f"rm -r {BAILEYS}")
    done = converge(host, runbook=only(STEP))
    assert done.changed == [STEP]
    made = version(host, BAILEYS)
    needed = "@whiskeysockets/baileys 7.0.0-rc.3 needs git.invalid (from the lock file)"
    assert f"npm: {needed}, which failed: " in done.output
    assert f"npm: @whiskeysockets/baileys {made} from the registry instead" in done.output
    assert made != "7.0.0-rc.3"
    assert loads(host, "@whiskeysockets/baileys")
    assert version(host, f"{BAILEYS}/node_modules/pino") == packages["node_modules/pino"]["version"]
    write(host, f"{APP}/package-lock.json", text)


@pytest.mark.slow
def test_no_restart_onto_what_does_not_load(host: Host) -> None:
    before = apps(host)["ai-admin-api"]
    host.ssh(f"mv {BAILEYS}/node_modules/long /root/; touch {APP}/.env")
    said = refuse(host, runbook=without(STEP))
    line = "ai-admin-api was not restarted, because it would not come up: @whiskeysockets/baileys does not load: "
    assert f"{line}Cannot find package 'long' imported from {BAILEYS}/" in said
    assert apps(host)["ai-admin-api"] == before
    assert "does not load: Cannot find package 'long'" in converge(host, runbook=only(STEP, "API restart")).output


@pytest.mark.slow
def test_a_file_system_of_its_own_and_another_user(host: Host) -> None:
    """node_modules is a link to where another user than root keeps it; others read what comes there."""
    host.ssh(
        "sh -eu",
        input=f"""
        mkdir /srv/disk; mount -t tmpfs tmpfs /srv/disk; mv {MODULES} /srv/disk/; ln -s /srv/disk/node_modules {APP}/
        chown -R www-data: /srv/disk/node_modules; rm -r {MODULES}/socket.io {MODULES}/@whiskeysockets
        """,
    )
    try:
        assert converge(host, runbook=only(STEP)).changed == [STEP]
        assert loads(host, "@whiskeysockets/baileys")
        assert host.ssh(f"find {MODULES}/ ! -user www-data -o ! -group www-data").stdout == ""
        assert host.ssh(f"find {MODULES}/ ! -type l ! -perm -o=r -o -type d ! -perm -o=rx").stdout == ""
        assert host.ssh(f"readlink {MODULES}").stdout.strip() == "/srv/disk/node_modules"
    finally:
        host.ssh(f"rm {MODULES}; mv /srv/disk/node_modules {APP}/; umount /srv/disk")
