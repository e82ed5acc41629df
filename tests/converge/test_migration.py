"""Database migration: once, whole or not at all, and no row is changed by it."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from subprocess import PIPE

import pytest

import channel
import remote.migration
from tests.converge.conftest import APP, converge, only, read, refuse, replace, sql, write
from tests.rehearsal.host import Host, until
from tests.rehearsal.story import ROOT, deploy

STEP = "Database migration"
NAME = "add_marketplace_fields_to_companies.sql"
FILE = f"{APP}/migrations/{NAME}"
COLUMNS = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'companies'"
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'idx_companies_integration_status'::regclass"
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


def schema(host: Host) -> list[str]:
    """All of it but the order of the columns."""
    return sorted(line.rstrip(",") for line in dump(host, "--schema=public", "--schema-only").splitlines())


def rows(host: Host, columns: str) -> str:
    whole = f"string_agg(row({columns})::text, E'\\n' ORDER BY id)"
    return sql(host, f"SELECT count(*), md5({whole}) FROM companies")


@contextmanager
def held(host: Host) -> Iterator[None]:
    """An older transaction holds the table, until the block ends."""
    holds = "BEGIN; LOCK companies IN ROW EXCLUSIVE MODE; SELECT pg_sleep(300)"
    psql = f"cd /; exec runuser -u postgres -- psql -Xqc '{holds}'"
    of_it = "FROM pg_locks WHERE relation = 'companies'::regclass AND mode = 'RowExclusiveLock'"
    with subprocess.Popen([*host.ssh_command(), psql], stdout=PIPE, stderr=PIPE):
        until(60, "the lock", lambda: sql(host, f"SELECT count(*) {of_it}") == "1")
        yield
        sql(host, f"SELECT pg_terminate_backend(pid) {of_it}")


def test_another_hosts_migration_is_waited_for(host: Host) -> None:
    """They share the database; it may take longer than we wait for a table, and is nothing to be ended."""
    holds = "SELECT pg_advisory_lock(hashtext($$ai-admin-deploy$$)); SELECT pg_sleep(600)"
    psql = f"cd /; exec runuser -u postgres -- psql -Xqc '{holds}'"
    of_it = "FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND"
    with subprocess.Popen([*host.ssh_command(), psql], stdout=PIPE, stderr=PIPE), ThreadPoolExecutor() as pool:
        until(60, "the lock", lambda: sql(host, f"SELECT count(*) {of_it} granted") == "1")
        running = pool.submit(deploy, host, "--data", "lock_timeout=1", runbook=only(STEP))
        waits = f"SELECT count(*) {of_it} NOT granted AND query_start < clock_timestamp() - interval '3 seconds'"
        until(120, "it to wait for longer than that", lambda: running.done() or sql(host, waits) == "1")
        sql(host, f"SELECT pg_terminate_backend(pid) {of_it} granted")
    done = running.result()
    assert (done.code, done.changed) == (0, [STEP]), done.output


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
    before = dump(host, "--schema=public", "--no-acl")  # without rights, which postgres gave to nobody
    assert converge(host, runbook=only(STEP)).changed == [STEP]
    assert sql(host, LEDGER) == f"{NAME}|{hashlib.sha256(read(host, FILE)).hexdigest()}|t"
    assert dump(host, "--schema=public", "--no-acl") == before


@pytest.fixture
def file(host: Host) -> Iterator[str]:
    """The application's own, which the test may write over."""
    text = read(host, FILE).decode()
    yield text
    write(host, FILE, text)


def test_the_applications_role_can_use_what_was_made(host: Host) -> None:
    """It owns `companies`; the migration runs as postgres."""
    work = """SET SESSION AUTHORIZATION ai_admin;
        INSERT INTO marketplace_events (company_id, salon_id, event_type) SELECT min(id), 1, 'x' FROM companies;
        INSERT INTO marketplace_tokens (company_id, token_type, token) SELECT min(id), 'x', 'y' FROM companies;
        UPDATE marketplace_tokens SET token = 'z'; SELECT token FROM marketplace_tokens; DELETE FROM marketplace_events;
        RESET SESSION AUTHORIZATION; TRUNCATE marketplace_tokens, marketplace_events RESTART IDENTITY;"""
    converge(host, runbook=only(STEP))
    assert sql(host, work) == "z"
    before = dump(host)
    sql(host, "REVOKE INSERT ON marketplace_tokens FROM ai_admin")
    sql(host, "REVOKE ALL ON SEQUENCE marketplace_events_id_seq FROM ai_admin")
    done = converge(host, runbook=only(STEP))
    assert "ai_admin gets the rights to use marketplace_events, marketplace_tokens" in done.output
    assert sql(host, work) == "z"
    assert dump(host) == before, "also the ledger's entry"


def test_half_applied_is_completed(host: Host, file: str) -> None:
    """Five columns here, and all of them in a table of the same name that the application does not use."""
    converge(host, runbook=only(STEP))
    whole = schema(host)
    as_was = """DROP SCHEMA ai_admin_deploy CASCADE; DROP FUNCTION touch_updated_at CASCADE;
        DROP TABLE marketplace_events, marketplace_tokens;"""
    sql(host, as_was + "CREATE SCHEMA archive; CREATE TABLE archive.companies AS SELECT * FROM companies;")
    lost = ("marketplace_user_name", "last_payment_date", "connected_at")
    sql(host, "ALTER TABLE companies " + ", ".join(f"DROP COLUMN {column}" for column in lost))
    write(host, FILE, f"{file}\nINSERT INTO marketplace_events (salon_id, event_type) VALUES (1, 'migrated');")
    done = converge(host, runbook=only(STEP))
    lacking = "companies.marketplace_user_name, companies.last_pay"
    assert f"was only partly applied, but the database lacks {lacking}" in done.output
    assert "table marketplace_tokens, function touch_updated_at, trigger marketplace_tokens_touch\n" in done.output
    assert re.search(r"line \d+ \(INSERT INTO marketplace_events.*is not run again", done.output)
    assert sql(host, "SELECT count(*) FROM marketplace_events") == "0"
    assert schema(host) == whole
    assert sql(host, LEDGER).endswith("|f")


def test_types_of_a_schema_and_what_the_file_itself_renames(host: Host, file: str) -> None:
    own = """CREATE SCHEMA IF NOT EXISTS market; CREATE TYPE market.kind AS ENUM ('x');
        CREATE TABLE market.draft (a int);
        CREATE FUNCTION market.one() RETURNS int LANGUAGE sql AS 'SELECT 1'; DROP TABLE market.draft;
        ALTER TABLE marketplace_events RENAME COLUMN event_data TO payload;"""
    write(host, FILE, f"{file}\n{own}")
    converge(host, runbook=only(STEP))
    sql(host, "DROP SCHEMA ai_admin_deploy CASCADE; DROP FUNCTION market.one; CREATE TYPE kind AS ENUM ('y')")
    done = converge(host, runbook=only(STEP))
    assert "was only partly applied, but the database lacks function market.one\n" in done.output


def test_what_went_after_it_was_applied_is_made_again(host: Host) -> None:
    converge(host, runbook=only(STEP))
    whole = schema(host)
    sql(host, "INSERT INTO marketplace_tokens (token_type, token) VALUES ('x', 'y')")
    sql(host, "DROP TABLE marketplace_events; DROP TRIGGER marketplace_tokens_touch ON marketplace_tokens")
    sql(host, "ALTER TABLE companies DROP integration_status; ALTER TABLE marketplace_tokens DROP updated_at")
    done = converge(host, runbook=only(STEP))
    assert (
        "is in the ledger, but the database lacks companies.integration_status, index idx_companies_integration_status,"
        " table marketplace_events, marketplace_tokens.updated_at, trigger marketplace_tokens_touch\n"
    ) in done.output
    assert schema(host) == whole
    assert sql(host, "SELECT token FROM marketplace_tokens") == "y"


@pytest.mark.parametrize(("name", "path"), [("salons", "salons, public"), ("ai_admin", "DEFAULT")])
def test_in_the_schema_that_the_application_uses(host: Host, name: str, path: str) -> None:
    """Where its role has a search path of its own, or a schema of its own name."""
    sql(host, f"CREATE SCHEMA {name}; CREATE TABLE {name}.companies (LIKE companies INCLUDING ALL)")
    sql(host, f"ALTER TABLE {name}.companies OWNER TO ai_admin; GRANT USAGE ON SCHEMA {name} TO ai_admin")
    sql(host, f"ALTER ROLE ai_admin SET search_path = {path}")
    try:
        converge(host, runbook=only(STEP))
    finally:
        sql(host, "ALTER ROLE ai_admin RESET search_path")
    assert sql(host, f"{COLUMNS} GROUP BY table_schema ORDER BY table_schema = 'public'") == "34\n21"
    made = f"SELECT to_regclass('{name}.marketplace_tokens'), to_regclass('marketplace_tokens')"
    assert sql(host, made) == f"{name}.marketplace_tokens|"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("COMMIT TRANSACTION;", "line 2: COMMIT: we run the whole file in one transaction"),
        ("SELECT 1; END;", "line 2: END: we run the whole file in one transaction"),
        ("\\! touch /tmp/obeyed", "line 2: \\! is a command of psql, not SQL; take it out"),
        ("SET lock_timeout = 0;", "line 2: lock_timeout is set by group_data"),
        ("ALTER TABLE companies ADD api_key jsonb;", "companies.api_key is varchar in the database and must be jsonb"),
    ],
)
def test_refused_before_anything_is_changed(host: Host, file: str, line: str, said: str) -> None:
    sql(host, "ALTER TABLE companies ADD COLUMN api_key varchar(255)")
    write(host, FILE, f"-- Миграция\n{line}\n{file}")
    before = dump(host)
    assert said in refuse(host)
    assert dump(host) == before
    assert host.ssh("ls /tmp/obeyed /opt/ai-admin/node_modules/socket.io", check=False).stdout == ""


def test_a_file_that_an_editor_has_marked_and_a_database_that_expects_latin(host: Host, file: str) -> None:
    sql(host, "ALTER DATABASE postgres SET client_encoding = 'LATIN1'")
    write(host, FILE, f"\ufeff{file}")
    assert converge(host, runbook=only(STEP)).changed == [STEP]
    assert sql(host, COLUMNS) == "34"
    comments = "SET client_encoding = 'UTF8'; SELECT description FROM pg_description WHERE description ~ '; frozen;'"
    assert sql(host, comments).startswith("Статус: ")


def migrate(host: Host, statement: str, planned: bytes | None = None) -> str:
    """The step alone, with a statement that its plan would have refused; returns why it failed."""
    call = channel.message(
        remote.migration.migrate,
        deploy="",
        app_dir=APP,
        database=None,
        name=NAME,
        expected=hashlib.sha256(planned or read(host, FILE)).hexdigest(),
        search_path="public",
        statements=[statement],
        concurrently=[],
        enter=None,
        seen=None,
        adopted=False,
        lock_timeout=1,
        statement_timeout=5,
    )
    return host.ssh(channel.PYTHON.get_raw_value(), input=call, check=False).stderr


def test_only_what_was_planned_is_run(host: Host) -> None:
    assert "was changed by somebody else just now" in migrate(host, "SELECT 1", planned=b"another file")
    assert "backslash commands are restricted" in migrate(host, "SELECT 1;\n\\! touch /tmp/obeyed\n")
    assert host.ssh("ls /tmp/obeyed", check=False).stdout == ""


def test_a_psql_that_cannot_be_restricted(host: Host) -> None:
    """As those before 17.6 and 16.10."""
    wrapper = r"""#!/bin/sh
script=$(cat)
case $script in "\restrict"*) printf '%s\n' 'psql:<stdin>:1: error: invalid command \restrict' >&2; exit 3;; esac
printf '%s\n' "$script" | /usr/lib/postgresql/17/bin/psql "$@"
"""
    old = "/usr/lib/postgresql/99/bin/psql"
    host.ssh(f"mkdir -p $(dirname {old}); cat > {old}; chmod +x {old}", input=wrapper)
    try:
        converge(host, runbook=only(STEP))
    finally:
        host.ssh("rm -r /usr/lib/postgresql/99")
    assert sql(host, COLUMNS) == "34"


def test_failing_statement_leaves_all_as_it_was(host: Host) -> None:
    before, text = dump(host), read(host, FILE).decode()
    replace(host, FILE, "CREATE INDEX", "ALTER TABLE salons ADD COLUMN x int;\nCREATE INDEX")
    output = refuse(host, runbook=only(STEP))
    replace(host, FILE, "ALTER TABLE salons ADD COLUMN x int;\n", "")
    assert "the migration failed, and the database is as it was" in output
    assert 'relation "salons" does not exist' in output
    assert dump(host) == before
    assert read(host, FILE).decode() == text


def test_a_server_that_speaks_russian(host: Host) -> None:
    """As one whose host was installed so: what another holds for a moment is waited for there too."""
    host.ssh("localedef -i ru_RU -f UTF-8 ru_RU.UTF-8; systemctl restart postgresql")
    sql(host, "ALTER SYSTEM SET lc_messages = 'ru_RU.UTF-8'")
    host.ssh("systemctl restart postgresql")
    try:
        assert "ОШИБКА" in host.ssh("cd /; runuser -u postgres -- psql -Xc 'no' 2>&1", check=False).stdout
        with held(host):
            output = refuse(host, "--data", "lock_timeout=1", runbook=only(STEP))
        assert "the migration waited 4 times 1 s for the table companies" in output
        assert converge(host, runbook=only(STEP)).changed == [STEP]
    finally:
        sql(host, "ALTER SYSTEM RESET lc_messages")
        host.ssh("systemctl restart postgresql")


def test_without_companies_nothing_is_done(host: Host) -> None:
    sql(host, "DROP TABLE companies CASCADE")
    before = dump(host)
    output = refuse(host, runbook=only(STEP))
    assert f"the database of {host.name} has no table `companies`" in output
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


def test_an_index_that_is_half_built_is_built_again(host: Host) -> None:
    """Not while an older transaction holds the table: that one would wait for nobody."""
    converge(host, runbook=only(STEP))
    sql(host, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_companies_integration_status'::regclass")
    with held(host):
        output = refuse(host, "--data", "statement_timeout=1", runbook=only(STEP))
    assert "is in the ledger, but the database lacks index idx_companies_integration_status\n" in output
    assert "the migration is in the database, but not its index" in output
    assert "canceling statement due to lock timeout" in output and "at the table companies: pid" in output
    assert converge(host, runbook=only(STEP)).changed == [STEP]
    assert sql(host, VALID) == "t"


# --- a large table

WRITER = "UPDATE companies SET phone = :client_id WHERE id = :client_id + 1;"  # pgbench's own variable


@pytest.fixture
def large(host: Host) -> Iterator[None]:
    """1,000,000 rows, and a PostgreSQL that logs who waited 10 ms for a lock, and for whom."""
    sql(host, "INSERT INTO companies (yclients_id, name) SELECT n, 'Салон' FROM generate_series(1000001, 2000000) n")
    sql(host, "ALTER SYSTEM SET log_lock_waits = on")
    sql(host, "ALTER SYSTEM SET deadlock_timeout = '10ms'")
    sql(host, "ALTER SYSTEM SET log_statement = 'ddl'")
    sql(host, "SELECT pg_reload_conf()")
    yield
    sql(host, "ALTER SYSTEM RESET ALL")
    sql(host, "SELECT pg_reload_conf()")


@contextmanager
def writing(host: Host) -> Iterator[None]:
    """Two clients write to the table all the while; ended by the block's end, or by themselves after 5 minutes."""
    pgbench = f"cd /tmp; echo '{WRITER}' > w.sql; exec runuser -u postgres -- /usr/lib/postgresql/17/bin/pgbench"
    options = "-n -c 2 -T 300 -l --log-prefix=/tmp/writes -f /tmp/w.sql postgres"
    process = subprocess.Popen([*host.ssh_command(), f"{pgbench} {options}"], stdout=PIPE, stderr=PIPE)
    active = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'"
    until(60, "the writers", lambda: sql(host, active) == "2")
    try:
        yield
        assert sql(host, active) == "2"
    finally:
        sql(host, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'")
        process.communicate(timeout=60)


def in_the_way(host: Host, statement: str) -> bool:
    """Did somebody wait for the session that ran this statement, alone?"""
    log = host.ssh("cat /var/log/postgresql/*.log").stdout
    sessions = re.findall(rf"\[(\d+)\] .*statement: {statement} ", log)
    assert len(sessions) == 1, "not one of these"
    return sessions[0] in re.findall(r"\d+", " ".join(re.findall("holding the lock: ([0-9, ]+)", log)))


@pytest.mark.slow
def test_a_large_table_is_written_to_all_the_while(host: Host, large: None, file: str) -> None:
    del large
    write(host, FILE, file + "ALTER TABLE companies ALTER COLUMN name SET NOT NULL;")
    with writing(host):
        done = converge(host, runbook=only(STEP))
    assert re.search(r"\(CREATE INDEX .* does not lock companies while it reads", done.output)
    assert "(ALTER TABLE companies ALTER COLUMN name SET NOT NULL) locks companies while it reads" in done.output
    assert not in_the_way(host, "CREATE INDEX CONCURRENTLY")
    assert sql(host, VALID) == "t"

    # the same by the requirements' own command: what is asserted above would be seen
    sql(host, "DROP INDEX idx_companies_integration_status")
    with writing(host):
        sql(host, "CREATE INDEX idx_companies_integration_status ON companies (integration_status)")
    assert in_the_way(host, "CREATE INDEX idx_companies_integration_status")


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


@pytest.fixture
def guest(host: Host, other: str) -> Iterator[str]:
    """Another role there, as an application may have: it uses the tables, and makes none."""
    sql(host, "CREATE ROLE guest LOGIN PASSWORD 'of a guest'")
    del other
    yield "postgresql://guest:of%20a%20guest@127.0.0.1:5432/other"
    sql(host, "DROP OWNED BY guest", "other")
    sql(host, "DROP ROLE guest")


def test_a_role_that_may_not_make_it_is_refused_before_anything_runs(host: Host, guest: str) -> None:
    output = refuse(host, environment={"DATABASE_URL": guest})
    assert "and companies belongs to hosted, as whom the role in DATABASE_URL may not act" in output
    assert "name hosted there, or a superuser" in output
    assert "npm: " not in output and sql(host, COLUMNS, "other") == "2"


def test_a_role_that_may_keep_no_ledger_finds_all_there(host: Host, other: str, guest: str) -> None:
    """Somebody else's is in a schema that it may not use, or there is none and it may not make one."""
    converge(host, environment={"DATABASE_URL": other.format(QUOTED)}, runbook=only(STEP))
    entered = sql(host, LEDGER, "other")
    rights = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
    sql(host, f"GRANT {rights} TO guest; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO guest", "other")
    assert converge(host, environment={"DATABASE_URL": guest}, runbook=only(STEP)).changed == []
    assert sql(host, LEDGER, "other") == entered
    sql(host, "DROP SCHEMA ai_admin_deploy CASCADE", "other")
    assert converge(host, environment={"DATABASE_URL": guest}, runbook=only(STEP)).changed == []


def test_a_password_that_its_own_user_needs_is_named(host: Host) -> None:
    """psql would take the first line of the script for it."""
    rules = "/etc/postgresql/17/main/pg_hba.conf"
    whole = read(host, rules)
    host.ssh(f"sed -Ei '/^local/s/peer/scram-sha-256/' {rules}; systemctl reload postgresql")
    try:
        output = refuse(host, runbook=only(STEP))
    finally:
        write(host, rules, whole)
        host.ssh("systemctl reload postgresql")
    assert "it wants a password of its own user postgres: write `local all postgres peer`" in output
    assert "is PostgreSQL running" not in output


def test_wrong_password_is_one_line(host: Host, other: str) -> None:
    output = refuse(host, environment={"DATABASE_URL": other.format("quite-wrong")}, runbook=only(STEP))
    assert "password authentication failed" in output
    assert "quite-wrong" not in output
    assert sql(host, COLUMNS, "other") == "2"
