"""The packages, the database, and the session pool that makes the QR codes."""

from __future__ import annotations

import re

import pytest

from rules import METHODS, SESSION_POOL
from tests.verify.plugin import DEPLOY, Seen, component, needs
from tests.verify.target import Reading, Target

GET_QR = f"{DEPLOY} (this is the cause of \"Cannot read property 'getQR' of undefined\")"
MIGRATE = f'{DEPLOY} (this is the cause of "Column does not exist")'


def _major(version: str) -> str:
    found = re.search(r"\d+", version)
    return found[0] if found else ""


def test_package_is_installed(probe: Reading, package: str) -> None:
    """Which it is when Node loads it from where the application does."""
    falls = "the API will fail at its next restart"
    assert not probe[f"npm.{package}"].startswith("missing"), f"{package} is not in node_modules: {falls}"
    cause = probe[f"npm.{package}.loads"]
    assert cause == "yes", f"{package} does not load, and {falls}: {cause}"


@component("endpoints", "list them in package.json with their versions, and deploy the application again")
def test_what_the_source_loads_is_there(probe: Reading, target: Target) -> None:
    """Besides the packages of the settings: what the marketplace's own files load."""
    own = target.settings.packages
    there = probe["npm.there"].split()
    lacking = [f"{name} ({place})" for name, place in target.contract.packages.items() if name not in {*there, *own}]
    assert not lacking, f"node_modules lacks {', '.join(lacking)}: the API will fail at its next restart"


def test_package_has_the_right_major(probe: Reading, target: Target, package: str) -> None:
    version, wanted = probe[f"npm.{package}"].split()[:2]
    needs(version != "missing", f"{package} is not installed")
    wanted = wanted if wanted != "-" else target.settings.packages[package]
    assert _major(version) == _major(wanted), f"{package} is {version}, the application needs {wanted}"


@component("database", "systemctl status postgresql; check that DATABASE_URL names the right database")
def test_database_has_the_companies(probe: Reading) -> None:
    found = probe["database"]
    assert found.startswith(("complete", "without ")), f"the table companies cannot be read: {found[:150]}"


@component("database", MIGRATE)
def test_companies_has_the_columns(probe: Reading, seen: Seen) -> None:
    found = probe["database"]
    needs(found.startswith(("complete", "without ")), "the table companies cannot be read")
    assert found == "complete", f"the migration has not been applied: companies is {found}"
    seen("companies has the five columns")


# A type as the migration writes it -> its category in pg_type; others are not judged.
CATEGORIES = {"varchar": "S", "text": "S", "boolean": "B", "timestamptz": "D", "timestamp": "D", "jsonb": "U"}
CATEGORIES |= {"integer": "N", "int": "N", "bigint": "N", "numeric": "N"}
MADE = r"CREATE (?:OR REPLACE |UNIQUE )?(TABLE|INDEX|TRIGGER) (?:CONCURRENTLY )?(?:IF NOT EXISTS )?(?:public\.)?(\w+)"


def _columns(migration: str) -> dict[str, str]:
    """What it adds to tables that are there: as `companies.api_key`, with the type."""
    found = {}
    for statement in migration.split(";"):
        table = re.match(r"\s*ALTER TABLE (?:IF EXISTS )?(?:ONLY )?(?:public\.)?(\w+)", statement, re.IGNORECASE)
        for name, type_ in re.findall(r"ADD COLUMN (?:IF NOT EXISTS )?(\w+) (\w+)", statement, re.IGNORECASE):
            found[f"{table[1] if table else '?'}.{name}"] = type_.lower()
    return found


def _has(probe: Reading) -> list[list[str]]:
    needs(probe["database"] == "complete", f"the table companies is {probe['database'][:150]}")
    return [each.split(":") for each in probe["database.has"].split()]


@component("database", MIGRATE)
def test_database_has_all_that_the_migration_makes(probe: Reading) -> None:
    has = {tuple(each[:2]) for each in _has(probe)}
    made = [(kind.lower(), name) for kind, name in re.findall(MADE, probe["migration"], re.IGNORECASE)]
    made += [("column", name) for name in _columns(probe["migration"])]
    lacking = [" ".join(each) for each in made if each not in has]
    assert not lacking, f"of what the migration makes, the database lacks: {', '.join(lacking)}"


@component("database", "ALTER TABLE … ALTER COLUMN … TYPE … USING …; deploy does not convert values")
def test_columns_have_their_types(probe: Reading) -> None:
    found = {each[1]: each[2:] for each in _has(probe) if each[0] == "column"}
    wanted = {name: type_ for name, type_ in _columns(probe["migration"]).items() if type_ in CATEGORIES}
    wrong = [
        f"{name} is {found[name][1]} and must be {type_}"
        for name, type_ in wanted.items()
        if name in found and found[name][0] != CATEGORIES[type_]
    ]
    assert not wrong, "; ".join(wrong)


@component("database")
def test_the_applications_role_can_use_the_tables(probe: Reading) -> None:
    """Those that the migration makes; tests/verify/test_entry.py tries `companies`."""
    has = _has(probe)
    roles = {probe["database.role"], *(each[1] for each in has if each[0] == "owner")}
    denied = [each[1:] for each in has if each[0] == "denied" and each[1] != "companies" and each[2] in roles]
    assert not denied, "; ".join(f"{role} may not read and write {table}" for table, role in denied)


@component("baileys", f"to see why: node -e \"require('/opt/ai-admin/{SESSION_POOL}')\"")
def test_session_pool_loads(probe: Reading, seen: Seen) -> None:
    assert probe["pool.loads"] == "yes", f"session-pool.js does not load: {probe['pool.loads'].removeprefix('no: ')}"
    seen("the session pool has its four methods, and they work (whether a QR code comes: --live-qr)")


@component("baileys", GET_QR)
@pytest.mark.parametrize("method", METHODS)
def test_session_pool_has(probe: Reading, method: str) -> None:
    needs(probe["pool.loads"] == "yes", "the session pool does not load")
    assert probe[f"pool.{method}"] == "there", f"the session pool has no {method}"


@component("baileys", f"{DEPLOY}; a method that it says nobody knows, the application's developers must add")
def test_session_pool_has_what_is_called(probe: Reading, target: Target) -> None:
    """The requirements' list of methods is not all that the marketplace calls."""
    needs(probe["pool.loads"] == "yes", "the session pool does not load")
    unread = [each for each in target.contract.unread if "calls" in each]
    needs(not unread, f"it cannot be read in the source {', '.join(unread)}")
    there = probe["pool.methods"].split()
    lacking = [f"{name}() ({place})" for name, place in target.contract.calls.items() if name not in there]
    assert not lacking, f"the session pool has no {', '.join(lacking)}, which the marketplace calls"


@component("baileys", f"fix the method in {SESSION_POOL}")
@pytest.mark.parametrize("method", ["getQR", "getSession", "getSessionStatus"])
def test_session_pool_method_works(probe: Reading, method: str) -> None:
    needs(probe["pool.loads"] == "yes", "the session pool does not load")
    needs(probe[f"pool.{method}"] == "there", f"the session pool has no {method}")
    found = probe[f"pool.{method}()"]
    assert found == "right", f"{method} of the session pool, called for an existing session: {found}"


@component("baileys", f"fix {SESSION_POOL}: createSession must create the session itself")
def test_session_pool_is_not_recursive(probe: Reading) -> None:
    needs(probe["pool.loads"] == "yes", "the session pool does not load")
    assert probe["pool.recursion"] == "none", "createSession and getOrCreateSession call each other in an endless loop"


@component("baileys", "install Node.js 20 or newer, then {pm2} restart ai-admin-api")
def test_node_is_new_enough(probe: Reading) -> None:
    found = probe["node.version"]
    major, package, wanted = probe["node.wanted"].split(" ", 2)
    assert re.match(r"v\d", found), f"node does not run: {found}"
    assert int(_major(found)) >= int(major), f"node is {found}, {package} needs {wanted}"
