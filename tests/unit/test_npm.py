from __future__ import annotations

import itertools
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from operations.npm import missing, satisfies
from remote.npm import layout
from remote.readings import Package
from tests.unit.conftest import Node

VERSIONS = (
    *(
        "0.0.1",
        "0.1.0",
        "0.1.5",
        "0.2.0",
        "1.0.0",
        "1.2.3",
        "1.2.4",
        "2.0.0",
        "4.7.9",
        "4.8.1",
        "4.8.3",
        "4.9.0",
        "5.0.0",
    ),
    *("6.7.18", "6.17.16", "7.0.0-alpha.1", "7.0.0-rc.2", "7.0.0-rc.3", "7.0.0-rc.9", "7.0.0-rc13", "7.0.0-rc14"),
    *("7.0.0-rc.10", "7.0.0", "7.0.1-rc.1", "7.0.1", "7.1.0-rc.3", "7.1.0", "8.0.0-0", "8.0.0", "9.0.2", "10.0.0"),
    *("1.2.3-beta", "1.2.3-beta.2", "1.2.3+build.5"),
)
RANGES = (
    *(
        "^7.0.0-rc.3",
        "~7.0.0-rc.3",
        ">=7.0.0-rc.3",
        "7.0.0-rc.9",
        "^7.0.0",
        "7",
        "7.x",
        "^7.0.0-rc14",
        "~7.0.0-rc.3 || 4",
        "=7.0.0-rc.9",
    ),
    *(
        "^4.8.1",
        "~4.8.1",
        ">=4.8.1",
        ">4.8.1",
        "<=4.8.1",
        "<4.8.1",
        "4.8.1",
        "=4.8.1",
        "v4.8.1",
        "4.8.x",
        "4.8",
        "4",
        "4.*",
    ),
    *("*", "", "x", "^0.1.0", "^0.0.1", "~0.1", "^0", "1 || 2", "^1.2.3 || ^7.0.0-rc.3", ">=1.2.3 <2", "1.2.3 - 4.8.1"),
    *(">=9", "^9.0.2", "^1.2.3-beta.2", "~1", "> 1.2.3", ">= 4.8.1", "^ 4.8.1", "<7", ">=6 <8", "1.0.0 - 2"),
)


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("7.0.0-rc.9", "^7.0.0-rc.3", True),
        ("7.0.0-rc14", "^7.0.0-rc.3", True),  # "rc14" is one word, which sorts after "rc"
        ("7.0.0-rc.2", "^7.0.0-rc.3", False),
        ("6.17.16", "^7.0.0-rc.3", False),  # the registry's `latest`
        ("7.0.0", "^7.0.0-rc.3", True),
        ("7.1.0-rc.3", "^7.0.0-rc.3", False),  # a prerelease of another version
        ("8.0.0", "^7.0.0-rc.3", False),
        (None, "^7.0.0", False),
        *((version, "^1.0.0", False) for version in ("1.0", "1.2.3.4", "abc", "")),
        *((version, wanted, True) for version in ("1.0.0", "7.0.0-rc.9") for wanted in ("latest", "next", "npm:x@1")),
        ("1.0.0", "git+ssh://git@example.test/x.git#v2", True),
        ("1.0.0", "https://example.test/x.tgz", True),
        ("1.0.0", "file:../x", True),
        ("1.0.0", "user/repo#semver:^2", True),
    ],
)
def test_satisfies(version: str | None, wanted: str, fits: bool) -> None:
    assert satisfies(version, wanted) is fits


def test_satisfies_is_npms_own_rule(node: Node) -> None:
    pairs = list(itertools.product(VERSIONS, RANGES))
    chance = Random(7)  # noqa: S311 - repeatable, not secret
    either = [" || ".join(chance.sample([each for each in RANGES if each], 2)) for _ in range(20)]
    pairs += itertools.product(VERSIONS, either)
    assert len(pairs) > 500
    wrong = [
        (version, wanted, theirs)
        for version, wanted in pairs
        if satisfies(version, wanted) != (theirs := node.ask("satisfies", version, wanted))
    ]
    assert not wrong


# --- what to install


def package(version: str | None, cause: str, wanted: str | None) -> Package:
    return {"version": version, "cause": cause, "range": wanted}


HERE = package("4.8.1", "", "^4.8.1")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (HERE, {}),
        (package("4.9.0", "", "^4.8.1"), {}),
        (package(None, "not installed", "^4.8.1"), {"a": "^4.8.1"}),
        (package("4.8.1", "Cannot find module 'x'", "^4.8.1"), {"a": "^4.8.1"}),
        (package("3.0.0", "", "^4.8.1"), {"a": "^4.8.1"}),
        (package(None, "not installed", None), {"a": "^4"}),
        (package("4.2.0", "", None), {}),
        *((package("7.0.0-rc.3", "", wanted), {}) for wanted in ("*", "", " * ")),
        (package("6.17.16", "", "7.*"), {"a": "7.*"}),
        (package("4.7.1", "", "4.7.*"), {}),
        *((package(None, "not installed", wanted), {"a": "^4"}) for wanted in ("*", "")),
    ],
)
def test_missing(now: Package, expected: dict[str, str]) -> None:
    assert missing({"a": now, "fine": HERE}, {"a": "^4", "fine": "^4"}) == expected


# --- what goes inside the package

Tree = dict[str, dict[str, Any]]


def resolve(packages: Iterable[str], name: str, origin: str) -> str | None:
    """Node's own search: the nearest node_modules upwards."""
    while True:
        place = f"{origin}/node_modules/{name}" if origin else f"node_modules/{name}"
        if place in packages:
            return place
        if not origin:
            return None
        origin = origin.rpartition("node_modules/")[0].rstrip("/")


def check_layout(packages: Tree, name: str) -> dict[str, str]:
    """Each package finds what it found in npm's tree, and nothing is there in vain. Returns the layout."""
    made = layout(packages, name)
    top = f"node_modules/{name}"
    assert all(f"{place}/".startswith(f"{top}/") for place in made)
    for place, key in made.items():
        for each in packages[key].get("dependencies", {}):
            there, here = resolve(packages, each, key), resolve(made, each, place)
            assert (made[here] if here else None) == there, f"{each} of {place}"
    beside = {key: key.removeprefix("node_modules/") for key in made.values() if key.count("node_modules/") == 1}
    for key, each in beside.items():
        own = f"{top}/node_modules/{each}" in packages
        assert key == top or own or made[f"{top}/node_modules/{each}"] == key, "npm's hoisting does not hold inside"
    return made


def tree(**needs: str) -> Tree:
    """By place (`__` for a node_modules between), what each needs."""
    return {
        "node_modules/" + place.replace("__", "/node_modules/"): {"dependencies": dict.fromkeys(needed.split(), "*")}
        for place, needed in needs.items()
    }


def test_what_it_does_not_list_lies_beside_it() -> None:
    """As baileys and `long`, which protobufjs lists; what only others need stays out."""
    made = check_layout(tree(baileys="protobufjs", protobufjs="long", long="", other="far", far=""), "baileys")
    assert made == {
        "node_modules/baileys": "node_modules/baileys",
        "node_modules/baileys/node_modules/protobufjs": "node_modules/protobufjs",
        "node_modules/baileys/node_modules/long": "node_modules/long",
    }


def test_two_versions_of_one_package() -> None:
    """`a` has its own ms: then that of npm's tree lies inside what needs it, and finds what it needs itself."""
    made = check_layout(tree(a="ms debug", a__ms="", debug="ms", ms="x", x="ms", debug__y=""), "a")
    assert made["node_modules/a/node_modules/ms"] == "node_modules/a/node_modules/ms"
    assert made["node_modules/a/node_modules/debug/node_modules/ms"] == "node_modules/ms"


def test_other_kinds_of_needs() -> None:
    packages: Tree = {f"node_modules/{name}": {} for name in "abcd"}
    packages["node_modules/a"] = {
        "optionalDependencies": {"b": "*", "fsevents": "*"},
        "peerDependencies": {"c": "*", "sharp": "*"},
        "bundleDependencies": ["d"],
    }
    assert set(layout(packages, "a")) == {"node_modules/a", *(f"node_modules/a/node_modules/{name}" for name in "bcd")}


def test_a_cycle() -> None:
    assert len(check_layout(tree(a="b", b="c", c="a"), "a")) == 3


@pytest.mark.parametrize("seed", range(200))
def test_made_up_trees(seed: int) -> None:
    """Random trees, with other versions nested below some of the packages."""
    chance = Random(seed)  # noqa: S311 - repeatable, not secret
    names = [*"abcdefg", "@s/h"]
    tops = {f"node_modules/{name}" for name in names}
    nested = {f"{top}/node_modules/{chance.choice(names)}" for top in tops for _ in range(chance.choice([0, 0, 1, 2]))}
    deep = {f"{place}/node_modules/{chance.choice(names)}" for place in nested if chance.random() < 0.2}
    packages = {
        place: {"dependencies": dict.fromkeys(chance.sample(names, chance.choice([0, 0, 1, 2])), "*")}
        for place in sorted(tops | nested | deep)
    }
    check_layout(packages, "a")
