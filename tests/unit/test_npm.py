from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest

from operations.npm import missing, satisfies
from remote.npm import lock_for
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


def package(version: str | None, complete: bool, wanted: str | None, locked: str | None) -> Package:
    return {"version": version, "complete": complete, "range": wanted, "locked": locked}


HERE = package("4.8.1", True, "^4.8.1", "4.8.1")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (HERE, {}),
        (package("4.9.0", True, "^4.8.1", None), {}),
        (package(None, False, "^4.8.1", "4.8.1"), {"a": "^4.8.1"}),
        (package("4.8.1", False, "^4.8.1", "4.8.1"), {"a": "^4.8.1"}),
        (package("3.0.0", True, "^4.8.1", "4.8.1"), {"a": "^4.8.1"}),
        (package(None, False, None, None), {"a": "^4"}),
        (package("4.2.0", True, None, None), {}),
    ],
)
def test_missing(now: Package, expected: dict[str, str]) -> None:
    assert missing({"a": now, "fine": HERE}, {"a": "^4", "fine": "^4"}) == expected


# --- the lock for one package

Lock = dict[str, dict[str, Any]]


def resolve(packages: Lock, name: str, origin: str) -> str | None:
    """Node's own search: the nearest node_modules upwards."""
    while True:
        place = f"{origin}/node_modules/{name}" if origin else f"node_modules/{name}"
        if place in packages:
            return place
        if not origin:
            return None
        origin = origin.rpartition("node_modules/")[0].rstrip("/")


def check_lock(packages: Lock, name: str) -> Lock:
    """In the cut-out lock each package finds the same versions as in the whole one, and nothing is there in vain."""
    whole: Lock = {"": {"version": "0"}, **packages}
    cut = lock_for({"lockfileVersion": 3, "packages": whole}, name)
    assert cut
    root, lock = cut
    assert root["dependencies"] == {name: packages[f"node_modules/{name}"]["version"]}
    result: Lock = {place: entry for place, entry in lock["packages"].items() if place}
    assert all(place.startswith(f"node_modules/{name}") for place in result)
    waiting, seen = [(f"node_modules/{name}", f"node_modules/{name}")], set()
    while waiting:
        old, new = waiting.pop()
        if (old, new) in seen:
            continue
        seen.add((old, new))
        assert result[new]["version"] == whole[old]["version"]
        entry = whole[old]
        for each in {**entry.get("dependencies", {}), **entry.get("optionalDependencies", {})}:
            there, here = resolve(packages, each, old), resolve(result, each, new)
            assert (there is None) == (here is None), f"{each} of {new}"
            if there and here:
                waiting.append((there, here))
    assert {new for _, new in seen} == set(result)
    return result


def test_lock_with_conflicting_versions() -> None:
    packages: Lock = {
        "node_modules/top": {"version": "1", "dependencies": {"a": "1", "b": "1", "@s/c": "1"}, "integrity": "x"},
        "node_modules/a": {"version": "2", "dependencies": {"d": "1"}, "dev": True},
        "node_modules/d": {"version": "1"},
        "node_modules/b": {"version": "1", "dependencies": {"a": "1", "d": "2", "none": "1"}},
        "node_modules/b/node_modules/a": {"version": "1", "dependencies": {"d": "2"}},
        "node_modules/b/node_modules/d": {"version": "2", "dependencies": {"top": "1"}},
        "node_modules/@s/c": {
            "version": "1",
            "dependencies": {"a": "2"},
            "optionalDependencies": {"d": "1", "fsevents": "1"},
        },
        "node_modules/@s/c/node_modules/a": {"version": "3", "dependencies": {"@s/c": "1", "b": "1"}},
        "node_modules/unrelated": {"version": "9", "dependencies": {"a": "2"}},
    }
    result = check_lock(packages, "top")
    assert result["node_modules/top"]["integrity"] == "x"
    assert "dev" not in result["node_modules/top/node_modules/a"]
    assert not any("unrelated" in place for place in result)


def test_lock_with_a_cycle() -> None:
    packages: Lock = {f"node_modules/{n}": {"version": "1", "dependencies": {m: "1"}} for n, m in ("ab", "bc", "ca")}
    assert len(check_lock(packages, "a")) == 3


def test_lock_for_what_it_does_not_list() -> None:
    assert lock_for({"packages": {}}, "a") is None
    assert lock_for({}, "a") is None


@pytest.mark.parametrize("seed", range(60))
def test_made_up_locks(seed: int) -> None:
    """Random trees, with other versions nested below some of the packages."""
    chance = Random(seed)  # noqa: S311 - repeatable, not secret
    names = [*"abcdefg", "@s/h"]
    tops = {f"node_modules/{name}" for name in names}
    nested = {f"{top}/node_modules/{chance.choice(names)}" for top in tops for _ in range(chance.choice([0, 0, 1, 2]))}
    deep = {f"{place}/node_modules/{chance.choice(names)}" for place in nested if chance.random() < 0.2}
    packages: Lock = {
        place: {
            "version": f"{chance.randint(1, 9)}.{number}.0",
            "dependencies": dict.fromkeys(chance.sample(names, chance.choice([0, 0, 1, 2])), "*"),
        }
        for number, place in enumerate(sorted(tops | nested | deep))
    }
    check_lock(packages, "a")
