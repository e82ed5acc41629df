"""The packages, the database, and the session pool that makes the QR codes."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from testinfra.host import Host

from contract import Contract
from rules import COLUMNS, METHODS, MIGRATION, MIGRATION_COPY, SESSION_POOL
from settings import Settings
from tests.verify.checks import is_another_major, major
from tests.verify.plugin import DEPLOY, Seen, Unfit, component, needs
from tests.verify.target import Target

GET_QR = f"{DEPLOY} (this is the cause of \"Cannot read property 'getQR' of undefined\")"
MIGRATE = f'{DEPLOY} (this is the cause of "Column does not exist")'


def _package(host: Host, settings: Settings, name: str = "") -> dict[str, Any]:
    """Its package.json; without a name, the application's own. Empty where there is none."""
    folder = f"{settings.app_dir}/node_modules/{name}" if name else settings.app_dir
    done = host.run("cat %s", f"{folder}/package.json")
    return dict(json.loads(done.stdout)) if done.succeeded else {}


def test_package_is_installed(host: Host, settings: Settings, pool: dict[str, Any], package: str) -> None:
    """Which it is when Node loads it from where the application does."""
    falls = "the API will fail at its next restart"
    if package not in settings.packages:
        return
    assert _package(host, settings, package), f"{package} is not in node_modules: {falls}"
    cause = pool["packages"].get(package)
    needs(cause, "the session pool ends whatever loads it: see Baileys integration")
    assert cause == "yes", f"{package} does not load, and {falls}: {cause}"


def test_package_has_the_right_major(host: Host, settings: Settings, package: str) -> None:
    if package not in settings.packages:
        return
    version = _package(host, settings, package).get("version")
    needs(version, f"{package} is not installed")
    wanted = _package(host, settings).get("dependencies", {}).get(package, settings.packages[package])
    assert not is_another_major(str(version), wanted), f"{package} is {version}, the application needs {wanted}"


@component("endpoints", "list them in package.json with their versions, and deploy the application again")
def test_what_the_source_loads_is_there(host: Host, settings: Settings, contract: Contract) -> None:
    """Besides the packages of the settings: what the marketplace's own files load."""
    there = host.run("cd %s/node_modules && ls -d * @*/*", settings.app_dir).stdout.split()
    own = [*there, *settings.packages]
    lacking = [f"{name} ({place})" for name, place in contract.packages.items() if name not in own]
    assert not lacking, f"node_modules lacks {', '.join(lacking)}: the API will fail at its next restart"


LACKS = """SELECT CASE WHEN to_regclass('companies') IS NULL THEN 'no table companies'
                       ELSE coalesce('without ' || string_agg(name, ', '), 'complete') END
FROM unnest(string_to_array(:'columns', ' ')) AS name
WHERE NOT EXISTS (SELECT FROM pg_attribute
                  WHERE attrelid = to_regclass('companies') AND attname = name AND NOT attisdropped)"""
HAS = """WITH made AS (SELECT oid, relname FROM pg_class WHERE relkind IN ('r', 'p') AND pg_table_is_visible(oid)
              AND relnamespace <> 'pg_catalog'::regnamespace AND strpos(lower(:'migration'), relname) > 0)
SELECT 'table', relname, '', '' FROM made
UNION ALL SELECT 'column', format('%s.%s', relname, attname), typcategory::text,
  typname || CASE WHEN typcategory = 'S' AND atttypmod > 4 THEN format('(%s)', atttypmod - 4) ELSE '' END
FROM made JOIN pg_attribute ON attrelid = made.oid JOIN pg_type ON pg_type.oid = atttypid
WHERE attnum > 0 AND NOT attisdropped
UNION ALL SELECT 'index', i.relname, '', ''
FROM made JOIN pg_index ON indrelid = made.oid JOIN pg_class i ON i.oid = indexrelid WHERE indisvalid
UNION ALL SELECT 'trigger', tgname, '', '' FROM made JOIN pg_trigger ON tgrelid = made.oid WHERE NOT tgisinternal
UNION ALL SELECT 'owner', pg_get_userbyid(relowner), '', '' FROM pg_class WHERE oid = to_regclass('companies')
UNION ALL SELECT 'denied', relname, rolname, relname FROM made, pg_roles
WHERE rolcanlogin
  AND NOT (has_table_privilege(rolname, made.oid, 'SELECT') AND has_table_privilege(rolname, made.oid, 'INSERT')
           AND has_table_privilege(rolname, made.oid, 'UPDATE') AND has_table_privilege(rolname, made.oid, 'DELETE'))
UNION ALL SELECT 'denied', s.relname, rolname, made.relname
FROM made JOIN pg_depend ON refobjid = made.oid JOIN pg_class s ON s.oid = objid, pg_roles
WHERE rolcanlogin AND CASE relkind WHEN 'S' THEN NOT has_sequence_privilege(rolname, s.oid, 'USAGE') END;"""


def lacks(target: Target) -> str:
    """Of the five columns: `complete`, or what is missing, or what psql complains of."""
    return target.sql(f"{LACKS};", columns=" ".join(COLUMNS)).strip()


@component("database", "systemctl start postgresql (of a database elsewhere: correct DATABASE_URL, and deploy)")
def test_database_has_the_companies(target: Target) -> None:
    found = lacks(target)
    assert found.startswith(("complete", "without ")), f"the table companies cannot be read: {found[:150]}"


@component("database", MIGRATE)
def test_companies_has_the_columns(target: Target, seen: Seen) -> None:
    found = lacks(target)
    needs(found.startswith(("complete", "without ")), "the table companies cannot be read")
    assert found == "complete", f"the migration has not been applied: companies is {found}"
    seen("companies has the five columns")


# A type as the migration writes it -> its category in pg_type; others are not judged.
CATEGORIES = {"varchar": "S", "text": "S", "boolean": "B", "timestamptz": "D", "timestamp": "D", "jsonb": "U"}
CATEGORIES |= {"integer": "N", "int": "N", "bigint": "N", "numeric": "N"}
MADE = r"CREATE (?:OR REPLACE |UNIQUE )?(TABLE|INDEX|TRIGGER) (?:CONCURRENTLY )?(?:IF NOT EXISTS )?(?:public\.)?(\w+)"


def _migration(target: Target) -> str:
    """The application's own, else ours; without comments, in one line."""
    done = target.host.run("cat %s", f"{target.settings.app_dir}/migrations/{MIGRATION}")
    text = done.stdout if done.succeeded else MIGRATION_COPY.read_text(encoding="utf-8")
    return " ".join(re.sub("--.*", "", text).split())


def made_columns(target: Target) -> dict[str, str]:
    return _columns(_migration(target))


def _columns(migration: str) -> dict[str, str]:
    """What it adds to tables that are there: as `companies.api_key`, with the type: varchar(50)."""
    found = {}
    for statement in migration.split(";"):
        table = re.match(r"\s*ALTER TABLE (?:IF EXISTS )?(?:ONLY )?(?:public\.)?(\w+)", statement, re.IGNORECASE)
        added = r"ADD COLUMN (?:IF NOT EXISTS )?(\w+) ((?:character varying|\w+)(?: ?\(\d+\))?)"
        for name, type_ in re.findall(added, statement, re.IGNORECASE):
            found[f"{table[1] if table else '?'}.{name}"] = (
                type_.lower().replace("character varying", "varchar").replace(" ", "")
            )
    return found


def _has(target: Target) -> list[list[str]]:
    found = lacks(target)
    needs(found == "complete", f"the table companies is {found[:150]}")
    return [line.split("|") for line in target.sql(HAS, migration=_migration(target)).splitlines()]


@component("database", MIGRATE)
def test_database_has_all_that_the_migration_makes(target: Target) -> None:
    has = {tuple(each[:2]) for each in _has(target)}
    migration = _migration(target)
    made = [(kind.lower(), name) for kind, name in re.findall(MADE, migration, re.IGNORECASE)]
    made += [("column", name) for name in _columns(migration)]
    lacking = [" ".join(each) for each in made if each not in has]
    assert not lacking, f"of what the migration makes, the database lacks: {', '.join(lacking)}"


@component("database", "ALTER TABLE … ALTER COLUMN … TYPE … USING …; deploy does not convert values")
def test_columns_have_their_types(target: Target) -> None:
    found = {each[1]: each[2:] for each in _has(target) if each[0] == "column"}
    wrong = [
        f"{name} is {found[name][1]} and must be {type_}"
        for name, type_ in made_columns(target).items()
        if name in found and (_category(type_) not in ("", found[name][0]) or _room(found[name][1]) < _room(type_))
    ]
    assert not wrong, "; ".join(wrong)


def _category(type_: str) -> str:
    return CATEGORIES.get(type_.partition("(")[0], "")


def _room(type_: str) -> float:
    """How many characters it takes."""
    length = re.search(r"\((\d+)\)", type_)
    return int(length[1]) if length else math.inf


@component("database")
def test_the_applications_role_can_use_the_tables(target: Target, dotenv: dict[str, Any]) -> None:
    """Those that the migration makes; tests/verify/test_entry.py tries `companies`."""
    has = _has(target)
    roles = {dotenv["role"], *(each[1] for each in has if each[0] == "owner")}
    denied = [each[1:] for each in has if each[0] == "denied" and each[3] != "companies" and each[2] in roles]
    uses = [f"{role} may not {'read and write' if name == table else 'use'} {name}" for name, role, table in denied]
    assert not uses, "; ".join(uses)


# Each sequence whose next value some row has already. `max` reads the primary key's index.
BEHIND = """SELECT format('SELECT %L, %L, %L FROM %s HAVING max(%I) >= (SELECT last_value + is_called::int FROM %s)',
              relname, attname, sequence, c.oid::regclass, attname, sequence)
FROM pg_class c JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped,
  pg_get_serial_sequence(c.oid::regclass::text, attname) AS sequence
WHERE relkind = 'r' AND pg_table_is_visible(c.oid) AND relnamespace <> 'pg_catalog'::regnamespace
  AND strpos(lower(:'migration'), relname) > 0 AND sequence IS NOT NULL \\gexec"""


@component("database")
def test_no_sequence_is_behind(target: Target) -> None:
    found = lacks(target)
    needs(found == "complete", f"the table companies is {found[:150]}")
    rows = [line.split("|") for line in target.sql(BEHIND, migration=_migration(target)).splitlines()]
    for table, column, sequence in [row for row in rows if len(row) == 3]:
        statement = f"SELECT setval('{sequence}', max({column})) FROM {table}"
        why = f"the next {column} from {sequence} is in {table} already: inserts will fail"
        raise Unfit(why, f'{target.psql_by_hand} -c "{statement}"')


@component("baileys", f"to see why: node -e \"require('{{app_dir}}/{SESSION_POOL}')\"")
def test_session_pool_loads(pool: dict[str, Any], seen: Seen) -> None:
    needs({*pool["packages"].values()} <= {"yes"}, "a package that it may need does not load")
    assert pool["loads"] == "yes", f"session-pool.js does not load: {pool['loads']}"
    seen("the session pool has its four methods, and they work (whether a QR code comes: --live-qr)")


@component("baileys", GET_QR)
@pytest.mark.parametrize("method", METHODS)
def test_session_pool_has(pool: dict[str, Any], method: str) -> None:
    needs(pool["loads"] == "yes", "the session pool does not load")
    assert method in pool["methods"], f"the session pool has no {method}"


@component("baileys", otherwise="the application's developers must add it to the session pool")
def test_session_pool_has_what_is_called(pool: dict[str, Any], contract: Contract) -> None:
    """The requirements' list of methods is not all that the marketplace calls."""
    needs(pool["loads"] == "yes", "the session pool does not load")
    unread = [each for each in contract.unread if "calls" in each]
    needs(not unread, f"the source does not show {', '.join(unread)}")
    lacking = [f"{name}() ({place})" for name, place in contract.calls.items() if name not in pool["methods"]]
    assert not lacking, f"the session pool has no {', '.join(lacking)}, which the marketplace calls"


@component("baileys", f"fix the method in {SESSION_POOL}")
@pytest.mark.parametrize("method", ["getQR", "getSession", "getSessionStatus"])
def test_session_pool_method_works(pool: dict[str, Any], method: str) -> None:
    needs(pool["loads"] == "yes", "the session pool does not load")
    needs(method in pool["methods"], f"the session pool has no {method}")
    found = pool["calls"][method]
    assert found == "right", f"{method} of the session pool, called for an existing session: {found}"


@component("baileys", f"fix {SESSION_POOL}: createSession must create the session itself")
def test_session_pool_is_not_recursive(pool: dict[str, Any]) -> None:
    needs(pool["loads"] == "yes", "the session pool does not load")
    assert not pool["recursive"], "createSession and getOrCreateSession call each other in an endless loop"


@component("baileys", "install Node.js 20 or newer, then {pm2} restart {app}")
def test_node_is_new_enough(host: Host, target: Target, settings: Settings) -> None:
    found = host.run(f"{target.path}node --version 2>&1").stdout.strip()
    assert re.match(r"v\d", found), f"node does not run: {found}"
    needed = {name: _package(host, settings, name).get("engines", {}).get("node", "0") for name in settings.packages}
    name = max(needed, key=lambda each: major(needed[each]))
    assert major(found) >= major(needed[name]), f"node is {found}, {name} needs {needed[name]}"
