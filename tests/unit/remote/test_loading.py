"""What counts as installed: what the application's Node loads from the application's folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote import Failure, loading, pm2, services
from remote.processes import Done

LOADS = "module.exports = 1"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app/node_modules").mkdir(parents=True)
    return tmp_path / "app"


def install(app: Path, path: str, source: str = LOADS, **manifest: object) -> Path:
    """A package at this path below node_modules."""
    folder = app / "node_modules" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text(json.dumps({"version": "1.0.0", **manifest}))
    (folder / "index.js").write_text(source)
    return folder


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often Node was run."""
    real, program, log = shutil.which("node"), tmp_path / "bin/node", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho >> {log}\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return lambda: len(log.read_text()) if log.exists() else 0


# --- load


def test_what_loads(app: Path) -> None:
    install(app, "common")
    install(app, "@s/late", "export default await Promise.resolve(1)", type="module")  # which no `require` can
    install(app, "only-import", "export default 1", type="module", exports={"import": "./index.js"})
    ended = app / "ended"
    at_exit = f"process.on('exit', () => require('fs').writeFileSync('{ended}', ''))"
    install(app, "busy", f"setInterval(() => {{}}, 1000); console.log('ready'); {at_exit}")
    names = ["common", "@s/late", "only-import", "busy"]
    assert loading.load("api", str(app), names) == dict.fromkeys(names, "")
    assert ended.exists(), "Node was killed, for what they leave running"


def test_what_does_not(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its own cause, whatever the others do to Node. Only the run that hangs is to end soon."""
    run = pm2.run_clean

    def run_clean(*words: str, timeout: float, **options: Any) -> Done:
        return run(*words, timeout=3 if "hangs" in words else timeout, **options)

    monkeypatch.setattr(pm2, "run_clean", run_clean)
    monkeypatch.setattr(loading, "TIMEOUT", 300)
    install(app, "needs", "require('long')")
    install(app, "imports", "import 'long'", type="module")
    install(app, "exits", "process.exit(0)")
    install(app, "throws", "throw null")
    install(app, "hangs", "for (;;);")
    install(app, "fine")
    found = loading.load("api", str(app), ["hangs", "needs", "imports", "exits", "throws", "gone", "fine"])
    assert found == {
        "needs": "Cannot find module 'long'",
        "imports": f"Cannot find package 'long' imported from {app}/node_modules/imports/index.js",
        "exits": "Node ended with status 0",
        "throws": "null",
        "gone": "Cannot find module 'gone'",
        "hangs": "node did not end within 3 s",
        "fine": "",
    }


def test_the_shells_environment_is_not_the_applications(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(app, "needs", "require('long')")
    install(app, "elsewhere/node_modules/long")
    monkeypatch.setenv("NODE_PATH", f"{app}/node_modules/elsewhere/node_modules")
    assert loading.load("api", str(app), ["needs"]) == {"needs": "Cannot find module 'long'"}


# --- the note that spares a look Node


def test_node_is_not_asked_twice(app: Path, asked: Callable[[], int]) -> None:
    install(app, "good")
    install(app, "bad", "require('long')")
    why = {"good": "", "bad": "Cannot find module 'long'"}
    assert loading.known("api", str(app), ["good", "bad"]) == why
    with pytest.raises(Failure, match=r"^bad does not load: Cannot find module 'long'$"):
        loading.check("api", str(app), ["good", "bad"])
    assert asked() == 2, "a look writes no note"
    assert loading.known("api", str(app), ["bad", "good"]) == why
    assert asked() == 2
    assert loading.known("api", str(app), ["good"]) == {"good": ""}
    assert asked() == 3, "the note is of other packages"


CHANGES = {
    "a package that ours needs": "rm -r node_modules/beside",
    "one in a scope": "rm -r node_modules/@s/beside",
    "one inside ours": "rm -r node_modules/ours/node_modules/inside",
    "one in a scope inside ours": "rm -r node_modules/ours/node_modules/@s/inside",
    "ours": "touch node_modules/ours/package.json",
    "by npm": "touch node_modules/.package-lock.json",
    "Node": "touch ../bin/node",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_may_have_changed_is_asked_again(app: Path, asked: Callable[[], int], change: str) -> None:
    names = ["beside", "@s/beside", "ours/node_modules/inside", "ours/node_modules/@s/inside"]
    install(app, "ours", "".join(f"require('{name.rpartition('node_modules/')[2]}');" for name in names))
    for name in names:
        install(app, name)
    (app / "node_modules/.package-lock.json").touch()
    loading.check("api", str(app), ["ours"])
    assert loading.known("api", str(app), ["ours"]) == {"ours": ""}
    assert asked() == 1
    assert os.system(f"cd {app} && {change}") == 0  # noqa: S605 -- of the table above
    assert bool(loading.known("api", str(app), ["ours"])["ours"]) == change.startswith("rm")
    assert asked() == 2


def test_a_restart_asks_when_any_file_has_changed(app: Path, asked: Callable[[], int]) -> None:
    """For what loaded once need not do so again: what a look takes from the note is of their manifests alone."""
    package = install(app, "ours", "require('./lib/deep')")
    (package / "lib").mkdir()
    (package / "lib/deep.js").touch()
    for _ in range(2):
        loading.check("api", str(app), ["ours"])
    assert asked() == 1

    (package / "lib/deep.js").write_text("require('long')")
    assert loading.known("api", str(app), ["ours"]) == {"ours": ""}, "the note does not cover all that there is"
    for times in (2, 3):  # and again, as long as one does not load
        with pytest.raises(Failure, match="ours does not load"):
            loading.check("api", str(app), ["ours"])
        assert asked() == times
    assert loading.known("api", str(app), ["ours"]) == {"ours": "Cannot find module 'long'"}
    assert asked() == 3


@pytest.mark.parametrize("is_linked", [True, False], ids=["elsewhere", "inside"])
def test_what_a_link_leads_to_outside_may_change_unseen(app: Path, asked: Callable[[], int], is_linked: bool) -> None:
    """A workspace, or `npm link`; pnpm's links stay inside."""
    package = install(app, "../../elsewhere" if is_linked else ".pnpm/ours")
    (app / "node_modules/ours").symlink_to(package)
    for _ in range(2):
        loading.check("api", str(app), ["ours"])
    assert asked() == (2 if is_linked else 1)


def test_other_packages_are_asked_for(app: Path, asked: Callable[[], int]) -> None:
    for name in ("one", "two"):
        install(app, name)
    for names in (["one"], ["one", "two"], ["two", "one"]):
        loading.check("api", str(app), names)
    assert asked() == 2


def test_the_note_is_roots(app: Path) -> None:
    loading.check("api", str(app), [])
    assert [
        oct(path.stat().st_mode & 0o777)
        for path in (Path(services.STATE), Path(f"{services.STATE}/{loading._note('api')}.json"))
    ] == [
        "0o700",
        "0o600",
    ]


def test_a_restart_removes_what_a_killed_install_left(app: Path) -> None:
    """With a copy of .npmrc, and its registry's password."""
    staging = Path(loading.staging(str(app)))
    staging.mkdir()
    (staging / ".npmrc").touch()
    loading.check("api", str(app), [])
    assert not staging.exists()
