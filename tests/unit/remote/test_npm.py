"""What is installed; how npm is asked, and how what it made gets into its place."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from remote import Failure, loading, npm
from remote.npm import complaint, from_git, gather, place, read, stage, versions
from remote.processes import Done
from tests.unit.remote.conftest import names


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """The application's folder."""
    write(tmp_path / "app", name="app")
    return tmp_path / "app"


def write(folder: Path, **manifest: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text(json.dumps(manifest))
    return folder


def install(app: Path, path: str, version: str = "1.0.0", source: str = "") -> Path:
    """A package at this path below node_modules."""
    folder = write(app / "node_modules" / path, version=version)
    (folder / "index.js").write_text(source)
    return folder


def test_read(app: Path) -> None:
    write(app, dependencies={"a": "^1.0.0", "both": "^2"}, optionalDependencies={"both": "^1", "may": "^3"})
    install(app, "a", "1.0.5", "require('gone')")
    install(app, "b", "2.0.0")
    assert read(app="api", app_dir=str(app), packages=["a", "b", "both", "may"]) == {
        "a": {"version": "1.0.5", "cause": "Cannot find module 'gone'", "range": "^1.0.0"},
        "b": {"version": "2.0.0", "cause": "", "range": None},
        "both": {"version": None, "cause": "not installed", "range": "^2"},
        "may": {"version": None, "cause": "not installed", "range": "^3"},
    }


@pytest.mark.parametrize("text", ['{"dependencies": {},}', "<<<<<<< HEAD", "[]", "\0\0"])
def test_a_file_that_is_no_json_is_named(app: Path, text: str) -> None:
    (app / "package.json").write_text(text)
    with pytest.raises(Failure, match=r"/app/package.json is not (JSON: .*|a JSON object)$"):
        read(app="api", app_dir=str(app), packages=["a"])


@pytest.mark.parametrize("text", ["{", "\0\0", "[]"])
def test_a_package_that_a_power_cut_damaged_is_not_installed(app: Path, text: str) -> None:
    install(app, "a")
    (app / "node_modules/a/package.json").write_text(text)
    assert read(app="api", app_dir=str(app), packages=["a"])["a"]["version"] is None
    assert versions(f"{app}/node_modules") == {}


def test_read_without_node_modules(app: Path) -> None:
    found = read(app="api", app_dir=str(app), packages=["@s/a"])
    assert found == {"@s/a": {"version": None, "cause": "not installed", "range": None}}


def test_read_without_an_application(app: Path) -> None:
    (app / "package.json").unlink()
    with pytest.raises(Failure, match=r"/app/package.json is not there: deploy the application first, or set app_dir"):
        read(app="api", app_dir=str(app), packages=["a"])


def test_versions(app: Path) -> None:
    install(app, "a", "1.0.0")
    install(app, "a/node_modules/b", "2.0.0")
    install(app, "@s/c", "3.0.0-rc.1")
    install(app, ".hidden", "4.0.0")
    write(app / "node_modules/no-version")
    (app / "node_modules/a-file").touch()
    assert versions(f"{app}/node_modules") == {"a": "1.0.0", "@s/c": "3.0.0-rc.1"}
    assert versions(f"{app}/nowhere") == {}


# --- place


@pytest.mark.parametrize("name", ["a", "@s/a"])
def test_place(app: Path, name: str) -> None:
    made = write(app / "staging/a", version="2.0.0")
    target = app / "node_modules" / name
    target.parent.mkdir(parents=True)
    place(str(made), str(target))
    made = write(app / "staging/a", version="3.0.0")
    place(str(made), str(target))
    assert versions(f"{app}/node_modules") == {name: "3.0.0"}
    assert json.loads((made / "package.json").read_text()) == {"version": "2.0.0"}, "which goes with the staging"


def test_place_replaces_a_link_and_not_what_it_leads_to(app: Path) -> None:
    elsewhere = write(app / "elsewhere", version="1.0.0")
    made = write(app / "staging/a", version="2.0.0")
    (app / "node_modules").mkdir()
    (app / "node_modules/a").symlink_to(elsewhere)
    place(str(made), f"{app}/node_modules/a")
    assert versions(f"{app}/node_modules") == {"a": "2.0.0"}
    assert (elsewhere / "package.json").exists()


def test_place_that_fails_leaves_the_old_one(app: Path) -> None:
    target = install(app, "a", "1.0.0")
    with pytest.raises(Failure, match=f"^ENOENT: .*, {target}: it cannot be replaced in one rename; move it away"):
        place(f"{app}/staging/no", str(target))
    assert versions(f"{app}/node_modules") == {"a": "1.0.0"}


def test_place_where_there_was_nothing_leaves_nothing(app: Path) -> None:
    with pytest.raises(FileNotFoundError):
        place(f"{app}/staging/no", f"{app}/node_modules/a")
    assert versions(f"{app}/node_modules") == {}


# --- a git host

LOCK: dict[str, Any] = {
    "lockfileVersion": 3,
    "packages": {
        "": {"dependencies": {"top": "1"}},
        "node_modules/top": {"version": "1.0.0", "dependencies": {"middle": "1"}},
        "node_modules/middle": {"version": "1.0.0", "dependencies": {"git": "1", "plain": "1"}},
        "node_modules/git": {"resolved": "git+ssh://git@git.example.test/who/what.git#0123"},
        "node_modules/plain": {"version": "1.0.0", "resolved": "https://registry.example.test/plain.tgz"},
    },
}


def test_from_git() -> None:
    host = "git.example.test"
    assert from_git(LOCK) == {"git": host, "middle": host, "top": host}
    addresses: tuple[Any, ...] = (True, None, "https://registry.example.test/git/-/git-1.tgz")
    for address in addresses:
        assert from_git({"packages": {"node_modules/a": {"resolved": address}}}) == {}
    for address in (f"git+https://{host}/x.git#1", f"git://{host}:1/x", f"git+https://u:p@{host}/x"):
        assert from_git({"packages": {"node_modules/a": {"resolved": address}}}) == {"a": host}
    assert from_git({}) == {}


@pytest.fixture
def no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that reaches no git host: it installs `top`, unless the lock needs one. With a file `broken` never."""
    program = tmp_path / "bin/npm"
    program.parent.mkdir()
    program.write_text(f"""#!/bin/sh
echo "npm ERR! code ENOTFOUND" >&2
echo "npm ERR! syscall getaddrinfo" >&2
if grep -q git.example package-lock.json; then
    echo "npm ERR! network request to https://git.example.test/x failed, reason: getaddrinfo" >&2; exit 1
elif [ -e {tmp_path}/broken ]; then
    echo "npm ERR! network request to https://me:secret@registry.example.test/x failed, reason: getaddrinfo" >&2; exit 1
fi
mkdir -p node_modules/top && echo '{{"version": "1.0.1"}}' > node_modules/top/package.json
""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def test_the_registry_does_where_the_locks_git_host_cannot_be_reached(app: Path, no_git: Path) -> None:
    del no_git
    (app / "package-lock.json").write_text(json.dumps(LOCK))
    (app / ".npmrc").write_text("x=1\n")
    said = stage("api", f"{app}/staging", str(app), {"top": "^1.0.0"})
    assert said == [
        "npm: top 1.0.0 needs git.example.test (from the lock file), which failed: code ENOTFOUND; network request to "
        "https://git.example.test/x failed, reason: getaddrinfo",
        "npm: top 1.0.1 from the registry instead",
    ]
    used = json.loads((app / "staging/package-lock.json").read_text())
    assert set(used["packages"]) == {"", "node_modules/plain"}, "what else the lock has, is kept"
    assert (app / "staging/.npmrc").stat().st_mode & 0o777 == 0o600


def test_both_fail(app: Path, no_git: Path) -> None:
    (no_git / "broken").touch()
    with pytest.raises(Failure) as plain:
        stage("api", f"{app}/first", str(app), {"top": "^1.0.0"})
    registry = "code ENOTFOUND; network request to https://registry.example.test/x failed, reason: getaddrinfo"
    assert str(plain.value) == f"npm could not install top@^1.0.0: {registry}"
    (app / "package-lock.json").write_text(json.dumps(LOCK))
    both = r"needs git\.example\.test \(from the lock file\): .*git\.example.* Without it: .*registry\.example"
    with pytest.raises(Failure, match=both):
        stage("api", f"{app}/second", str(app), {"top": "^1.0.0"})


@pytest.mark.parametrize(
    ("stderr", "told"),
    [
        (
            "npm ERR! code ENOENT\nnpm ERR! syscall spawn git\nnpm ERR! path git",
            "code ENOENT; syscall spawn git; path git",
        ),
        ("npm error code E1\nnpm error one\nnpm error 404 http://h:1/@s/x\n", "code E1; 404 http://h:1/@s/x"),
        ("npm ERR! code 1\nnpm ERR! to https://a:b@c@h/x, //token@h/", "code 1; to https://h/x, //h/"),
        ("node: not found\nnpm did not end within 600 s", "npm did not end within 600 s"),
        ("", "it ended with status -9"),
    ],
)
def test_complaint(stderr: str, told: str) -> None:
    assert complaint(Done(-9, b"", stderr)) == told


# --- gather


def test_gather(tmp_path: Path) -> None:
    """Each package with what lies beside it, and with its own; what belongs to a package's own files stays."""
    tree = tmp_path / "npm"
    needs = {"a": {"dependencies": {"@s/b": "1"}}, "@s/b": {}, "c": {"dependencies": {"@s/b": "1"}}, "other": {}}
    for name in needs:
        install(tree, name)
    install(tree, "a/node_modules/@s/b", "2.0.0")
    install(tree, "@s/b/test/node_modules/fixture")
    (tree / "node_modules/c/link").symlink_to("index.js")
    packages = {
        **{f"node_modules/{name}": each for name, each in needs.items()},
        "node_modules/a/node_modules/@s/b": {},
    }
    (tree / "node_modules/.package-lock.json").write_text(json.dumps({"packages": packages}))
    gather(str(tree), f"{tmp_path}/made", ["a", "c"])
    made = tmp_path / "made"
    assert versions(f"{made}/node_modules") == {"a": "1.0.0", "c": "1.0.0"}
    assert versions(f"{made}/node_modules/a/node_modules") == {"@s/b": "2.0.0"}
    assert versions(f"{made}/node_modules/c/node_modules") == {"@s/b": "1.0.0"}
    assert (made / "node_modules/c/node_modules/@s/b/test/node_modules/fixture").exists()
    assert (made / "node_modules/c/link").is_symlink()


# --- install


@pytest.fixture
def made(tmp_path: Path, app: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What npm makes of one run is what stands in this folder. The umask is that of a careful root."""
    program = tmp_path / "bin/npm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncp -r {tmp_path}/made/node_modules .\n. {tmp_path}/meanwhile\n")
    program.chmod(0o755)
    (tmp_path / "meanwhile").touch()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PM2_HOME", f"{tmp_path}/pm2")
    made = tmp_path / "made"
    install(made, "@s/ours", "2.0.0", "require('beside'); require('theirs')")
    install(made, "beside")
    packages = {"node_modules/@s/ours": {"dependencies": {"beside": "1"}}, "node_modules/beside": {}}
    (made / "node_modules/.package-lock.json").write_text(json.dumps({"packages": packages}))
    install(app, "theirs")
    return made


def run_install(app: Path) -> None:
    old = os.umask(0o077)
    try:
        npm.install("", app="none", app_dir=str(app), ranges={"@s/ours": "^2"}, packages=["@s/ours", "theirs"])
    finally:
        os.umask(old)


def test_install(app: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the user's who owns node_modules, others read it, and the next look needs no Node."""
    del made
    os.chown(app / "node_modules", 65534, 65534)
    run_install(app)
    assert versions(f"{app}/node_modules") == {"@s/ours": "2.0.0", "theirs": "1.0.0"}
    new = [app / "node_modules/@s", *(app / "node_modules/@s").rglob("*")]
    assert app / "node_modules/@s/ours/node_modules/beside/index.js" in new
    assert {(path.stat().st_uid, path.stat().st_gid) for path in new} == {(65534, 65534)}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in new)
    monkeypatch.setattr(loading, "load", None)
    assert [each["cause"] for each in read(app="none", app_dir=str(app), packages=["@s/ours", "theirs"]).values()] == [
        "",
        "",
    ]


def test_what_does_not_load_is_not_installed(app: Path, made: Path) -> None:
    (made / "node_modules/beside/index.js").write_text("require('long')")
    install(app, "@s/ours")
    with pytest.raises(Failure, match=r"^@s/ours does not load: Cannot find module 'long'$"):
        run_install(app)
    assert versions(f"{app}/node_modules") == {"@s/ours": "1.0.0", "theirs": "1.0.0"}
    assert names(app / "node_modules") == ["@s", "theirs"], "nothing of the try is left"


def test_somebody_else_runs_npm_meanwhile(app: Path, made: Path) -> None:
    (made.parent / "meanwhile").write_text(
        f"""echo '{{"version": "9.0.0"}}' > {app}/node_modules/theirs/package.json"""
    )
    with pytest.raises(Failure, match="not ours changed meanwhile: theirs"):
        run_install(app)


def test_install_where_there_is_no_node_modules(app: Path, made: Path) -> None:
    (made / "node_modules/@s/ours/index.js").write_text("")
    os.chown(app, 65534, 65534)
    shutil.rmtree(app / "node_modules")
    npm.install("", app="none", app_dir=str(app), ranges={"@s/ours": "^2"}, packages=["@s/ours"])
    assert versions(f"{app}/node_modules") == {"@s/ours": "2.0.0"}
    assert (app / "node_modules").stat().st_uid == 65534
