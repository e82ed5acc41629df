"""What is installed, and whether it is whole; and how a package gets into its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remote import Failure, npm
from remote.npm import Tree, place, read, versions


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """The application's folder."""
    write(tmp_path / "app", name="app")
    return tmp_path / "app"


def write(folder: Path, **manifest: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text(json.dumps(manifest))
    return folder


def install(app: Path, path: str, version: str = "1.0.0", needs: str = "", may_need: str = "") -> Path:
    """A package at this path below node_modules; `needs` names others. npm lists optional ones in both."""
    may = dict.fromkeys(may_need.split(), "*")
    dependencies = {**dict.fromkeys(needs.split(), "*"), **may}
    optional = {"optionalDependencies": may} if may else {}
    return write(app / "node_modules" / path, version=version, dependencies=dependencies, **optional)


def is_complete(app: Path, name: str) -> bool:
    return Tree(str(app)).is_complete(f"{app}/node_modules/{name}")


def test_a_package_without_needs(app: Path) -> None:
    install(app, "a")
    assert is_complete(app, "a")
    assert not is_complete(app, "b")


def test_a_missing_dependency(app: Path) -> None:
    install(app, "a", needs="b")
    assert not is_complete(app, "a")
    install(app, "b")
    assert is_complete(app, "a")


def test_a_missing_dependency_of_a_nested_one(app: Path) -> None:
    install(app, "a", needs="b")
    install(app, "a/node_modules/b", needs="c")
    assert not is_complete(app, "a")
    install(app, "a/node_modules/b/node_modules/c")
    assert is_complete(app, "a")


def test_a_nested_one_is_not_for_others(app: Path) -> None:
    install(app, "a", needs="b")
    install(app, "a/node_modules/b")
    install(app, "other", needs="b")
    assert is_complete(app, "a")
    assert not is_complete(app, "other")


def test_an_optional_one_may_be_missing(app: Path) -> None:
    install(app, "a", needs="b", may_need="fsevents")
    install(app, "b")
    assert is_complete(app, "a")


def test_scoped_ones(app: Path) -> None:
    install(app, "@scope/a", needs="@other/b c")
    install(app, "@other/b", needs="@scope/a")
    assert not is_complete(app, "@scope/a")
    install(app, "@scope/a/node_modules/c")
    assert is_complete(app, "@scope/a")


def test_a_cycle(app: Path) -> None:
    install(app, "a", needs="b")
    install(app, "b", needs="c")
    install(app, "c", needs="a")
    assert is_complete(app, "a")


def test_a_cycle_with_a_gap_is_incomplete_from_each_side(app: Path) -> None:
    """Whichever is asked first, and with one tree: what was taken for granted on the way is not remembered."""
    install(app, "a", needs="b missing")
    install(app, "b", needs="a")
    for order in (["a", "b"], ["b", "a"]):
        tree = Tree(str(app))
        for _ in range(2):
            assert {name: tree.is_complete(f"{app}/node_modules/{name}") for name in order} == {"a": False, "b": False}


def test_find_is_nodes_own_search(app: Path) -> None:
    nested = install(app, "a/node_modules/b", needs="c")
    install(app, "c")
    tree = Tree(str(app))
    modules = f"{app}/node_modules"
    assert tree.find("c", str(nested)) == f"{modules}/c"
    assert tree.find("b", f"{modules}/a") == f"{modules}/a/node_modules/b"
    assert tree.find("b", f"{modules}/c") is None
    near = install(app, "a/node_modules/b/node_modules/c")
    assert Tree(str(app)).find("c", str(nested)) == str(near)


def test_find_stays_in_the_applications_folder(app: Path) -> None:
    write(app.parent / "node_modules/c", version="1.0.0")
    install(app, "a")
    assert Tree(str(app)).find("c", f"{app}/node_modules/a") is None


def test_read(app: Path) -> None:
    write(app, dependencies={"a": "^1.0.0", "both": "^2"}, optionalDependencies={"both": "^1", "may": "^3"})
    locked = {"node_modules/a": {"version": "1.2.3"}, "node_modules/x/node_modules/b": {"version": "9.0.0"}}
    (app / "package-lock.json").write_text(json.dumps({"packages": locked}))
    install(app, "a", "1.0.5", needs="gone")
    install(app, "b", "2.0.0")
    assert read(app_dir=str(app), packages=["a", "b", "both", "may"]) == {
        "a": {"version": "1.0.5", "complete": False, "range": "^1.0.0", "locked": "1.2.3"},
        "b": {"version": "2.0.0", "complete": True, "range": None, "locked": None},
        "both": {"version": None, "complete": False, "range": "^2", "locked": None},
        "may": {"version": None, "complete": False, "range": "^3", "locked": None},
    }


def test_read_without_a_lock_and_node_modules(app: Path) -> None:
    assert read(app_dir=str(app), packages=["@s/a"]) == {
        "@s/a": {"version": None, "complete": False, "range": None, "locked": None}
    }


def test_read_without_an_application(app: Path) -> None:
    (app / "package.json").unlink()
    with pytest.raises(Failure, match=r"/app/package.json is not there: deploy the application first, or set app_dir"):
        read(app_dir=str(app), packages=["a"])


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
    place(str(made), str(target), f"{app}/staging/replaced")
    made = write(app / "staging/a", version="3.0.0")
    place(str(made), str(target), f"{app}/staging/replaced")
    assert versions(f"{app}/node_modules") == {name: "3.0.0"}
    assert not list((app / "staging").iterdir())


def test_place_replaces_a_link_and_not_what_it_leads_to(app: Path) -> None:
    elsewhere = write(app / "elsewhere", version="1.0.0")
    made = write(app / "staging/a", version="2.0.0")
    (app / "node_modules").mkdir()
    (app / "node_modules/a").symlink_to(elsewhere)
    place(str(made), f"{app}/node_modules/a", f"{app}/staging/replaced")
    assert versions(f"{app}/node_modules") == {"a": "2.0.0"}
    assert (elsewhere / "package.json").exists()


def test_place_puts_the_old_one_back(app: Path) -> None:
    target = install(app, "a", "1.0.0")
    with pytest.raises(FileNotFoundError):
        place(f"{app}/staging/no", str(target), f"{app}/replaced")
    assert versions(f"{app}/node_modules") == {"a": "1.0.0"}
    assert not (app / "replaced").exists()


def test_place_where_there_was_nothing_leaves_nothing(app: Path) -> None:
    with pytest.raises(FileNotFoundError):
        place(f"{app}/staging/no", f"{app}/node_modules/a", f"{app}/replaced")
    assert versions(f"{app}/node_modules") == {}


# --- lock_for


def test_lock_for_a_package_that_the_lock_does_not_list() -> None:
    assert npm.lock_for({}, "a") is None
    assert npm.lock_for({"packages": {"node_modules/x/node_modules/a": {"version": "1.0.0"}}}, "a") is None
