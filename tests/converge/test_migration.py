"""Database migration: once, whole or not at all, and no row is changed by it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.converge.conftest import APP, converge, only, read, refuse, replace, sql
from tests.rehearsal.host import Host
from tests.rehearsal.story import ROOT

STEP = "Database migration"
NAME = "add_marketplace_fields_to_companies.sql"
FILE = f"{APP}/migrations/{NAME}"
COLUMNS = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'companies'"
LEDGER = "SELECT name, sha256, adopted FROM ai_admin_deploy.migrations"


@pytest.fixture(scope="module")
def saved(host: Host) -> None:
    sql(
        host,
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres';
        CREATE DATABASE saved TEMPLATE postgres;""",
        "template1",
    )


@pytest.fixture(autouse=True)
def as_found(host: Host, saved: None) -> None:
    del saved
    sql(host, "DROP DATABASE postgres WITH (FORCE); CREATE DATABASE postgres TEMPLATE saved;", "template1")


def dump(host: Host, *options: str) -> str:
    """The database as SQL, without pg_dump's random key of each dump."""
    text = host.ssh("cd / && runuser -u postgres -- pg_dump", *options, "postgres").stdout
    return "\n".join(line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))


def rows(host: Host, columns: str) -> str:
    whole = f"string_agg(row({columns})::text, E'\\n' ORDER BY id)"
    return sql(host, f"SELECT count(*), md5({whole}) FROM companies")


def test_rows_stay_and_columns_come(host: Host) -> None:
    columns = sql(
        host,
        """SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position)
        FROM information_schema.columns WHERE table_name = 'companies'""",
    )
    before = rows(host, columns)
    assert sql(host, COLUMNS) == "21"
    assert converge(host, runbook=only(STEP)).changed == [STEP]
    assert sql(host, COLUMNS) == "34"
    assert rows(host, columns) == before
    assert before.startswith("20|")


def test_ledger_has_name_checksum_and_time(host: Host) -> None:
    converge(host, runbook=only(STEP))
    assert sql(host, LEDGER) == f"{NAME}|{hashlib.sha256(read(host, FILE)).hexdigest()}|f"
    assert sql(host, "SELECT now() - applied_at < interval '1 minute' FROM ai_admin_deploy.migrations") == "t"


def test_migrated_by_hand_is_adopted(host: Host) -> None:
    sql(host, read(host, FILE).decode())
    before = dump(host, "--schema=public")
    assert converge(host, runbook=only(STEP)).changed == [STEP]
    assert sql(host, LEDGER) == f"{NAME}|{hashlib.sha256(read(host, FILE)).hexdigest()}|t"
    assert dump(host, "--schema=public") == before


def test_failing_statement_leaves_all_as_it_was(host: Host) -> None:
    before, text = dump(host), read(host, FILE).decode()
    replace(host, FILE, "CREATE INDEX", "ALTER TABLE salons ADD COLUMN x int;\nCREATE INDEX")
    output = refuse(host, runbook=only(STEP))
    replace(host, FILE, "ALTER TABLE salons ADD COLUMN x int;\n", "")
    assert "the migration failed, and the database is as it was" in output
    assert 'relation "salons" does not exist' in output
    assert dump(host) == before
    assert read(host, FILE).decode() == text


def test_without_companies_nothing_is_done(host: Host) -> None:
    sql(host, "DROP TABLE companies CASCADE")
    before = dump(host)
    output = refuse(host, runbook=only(STEP))
    assert "the database of conv has no table `companies`" in output
    assert "set DATABASE_URL" in output
    assert dump(host) == before


def test_own_copy_where_the_host_has_no_file(host: Host) -> None:
    host.ssh(f"mv {FILE} /root/")
    done = converge(host, runbook=only(STEP))
    host.ssh(f"mv /root/{NAME} {FILE}")
    own = (ROOT / f"files{FILE}").read_bytes()
    assert done.changed == [STEP]
    assert sql(host, COLUMNS) == "34"
    assert sql(host, LEDGER) == f"{NAME}|{hashlib.sha256(own).hexdigest()}|f"


# --- another database, by URL

PASSWORD = "p@ss w#rd/:%'"
QUOTED = "p%40ss%20w%23rd%2F%3A%25%27"


@pytest.fixture
def other(host: Host) -> Iterator[str]:
    """A hosted database: its own role, a table `companies`, no superuser."""
    sql(host, "CREATE ROLE hosted LOGIN PASSWORD '" + PASSWORD.replace("'", "''") + "'")
    sql(host, "CREATE DATABASE other OWNER hosted")
    sql(host, "SET ROLE hosted; CREATE TABLE companies (id serial PRIMARY KEY, title text)", "other")
    yield "postgresql://hosted:{}@127.0.0.1:5432/other"
    sql(host, "DROP DATABASE other WITH (FORCE); DROP ROLE hosted;")


def test_database_url(host: Host, other: str) -> None:
    before = dump(host)
    done = converge(host, environment={"DATABASE_URL": other.format(QUOTED)}, runbook=only(STEP))
    assert done.changed == [STEP]
    assert sql(host, COLUMNS, "other") == "15"
    assert sql(host, LEDGER, "other").startswith(f"{NAME}|")
    assert dump(host) == before
    assert PASSWORD not in done.output
    assert QUOTED not in done.output


def test_wrong_password_is_one_line(host: Host, other: str) -> None:
    output = refuse(host, environment={"DATABASE_URL": other.format("quite-wrong")}, runbook=only(STEP))
    assert "password authentication failed" in output
    assert "quite-wrong" not in output
    assert sql(host, COLUMNS, "other") == "2"
