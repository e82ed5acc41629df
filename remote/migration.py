"""The marketplace migration: has it run, and run it once, whole or not at all, entered in a ledger."""

import os
import re
import time
from collections.abc import Mapping, Sequence

from remote import Failure, files
from remote.processes import Done, require, run
from remote.readings import Applied

CLIENTS = "/usr/lib/postgresql"
SOCKET = "/run/postgresql/.s.PGSQL.5432"
LEDGER = "ai_admin_deploy.migrations"
TRIES = 4
LONG = 3600  # seconds; the database's own limits end the migration before


def psql(database: Mapping[str, str] | None, script: str, timeout: float = 30) -> Done:
    """psql 17: as the OS user postgres over the socket, or to `database`, libpq's own keywords.

    Those come as a service file in memory: the password is in no argument, environment or file. `-X` leaves the
    operator's .psqlrc out of it.
    """
    options = ("-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-")
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PGCONNECT_TIMEOUT": "10"}
    # Debian's own `psql` is a Perl program that looks for a cluster, and then for one of these: 35 of its 40 ms
    versions = sorted(files.names(CLIENTS), key=lambda name: int(re.sub(r"\D", "", name) or 0))
    real = [f"{CLIENTS}/{version}/bin/psql" for version in versions] if database or os.path.exists(SOCKET) else []
    program = next((path for path in reversed(real) if os.path.exists(path)), "psql")
    if database is None:
        own = ("runuser", "-u", "postgres", "--", program, *options, "-d", "postgres")
        return run(*own, stdin=files.content(script), env=env, timeout=timeout)
    lines = ["[target]", *(f"{key}={value}" for key, value in database.items()), ""]
    service = os.memfd_create("service")
    try:
        os.write(service, files.content("\n".join(lines)))
        env |= {"PGSERVICEFILE": f"/dev/fd/{service}", "PGSERVICE": "target"}
        return run(program, *options, stdin=files.content(script), env=env, timeout=timeout, fds=[service])
    finally:
        os.close(service)


def read(*, app_dir: str, database: Mapping[str, str] | None, name: str, columns: Sequence[str]) -> Applied:
    """Only the database knows whether the migration ran: no HTTP route does. Raises Failure."""
    require("psql")
    file = files.read(f"{app_dir}/migrations/{name}")
    wanted = ", ".join(f"'{column}'" for column in columns)
    done = psql(
        database,
        f"""SELECT to_regclass('companies') IS NOT NULL AS companies, to_regclass('{LEDGER}') IS NOT NULL AS ledger,
          (SELECT count(*) FROM information_schema.columns
           WHERE table_name = 'companies' AND column_name IN ({wanted})) AS columns \\gset
        \\if :ledger
          SELECT sha256 AS sha FROM {LEDGER} WHERE name = '{name}' UNION ALL SELECT '' LIMIT 1 \\gset
        \\else
          \\set sha ''
        \\endif
        \\echo :companies :columns :sha
        """,
    )
    if done.status != 0:
        where = "is PostgreSQL running? systemctl status postgresql; a database elsewhere: set DATABASE_URL"
        raise Failure(f"{done.line_with('error')} ({where})")
    companies, count, sha = (*done.stdout.decode().strip().split(" "), "")[:3]
    return {"companies": companies == "t", "columns": int(count), "applied": sha or None, "file": files.sha256(file)}


def blockers(database: Mapping[str, str] | None) -> str:
    """Who stands in the way of the table: the backends, without the text of their queries, which may hold secrets."""
    done = psql(
        database,
        """SELECT format('pid %s (%s, %s, %s, for %s s)', pid, usename,
          coalesce(nullif(application_name, ''), 'no name'), state, extract(epoch FROM now() - xact_start)::int)
        FROM pg_stat_activity JOIN pg_locks USING (pid)
        WHERE relation = to_regclass('companies') AND granted AND pid <> pg_backend_pid() GROUP BY 1;""",
    )
    return ", ".join(done.stdout.decode(errors="replace").split("\n")).strip(", ") or "nobody any more"


def migrate(
    deploy: str,
    *,
    app_dir: str,
    database: Mapping[str, str] | None,
    name: str,
    sql: str | None,
    expected: str | None,
    adopted: bool,
    lock_timeout: int,
    statement_timeout: int,
) -> None:
    """Run the migration and enter it in the ledger, both or neither. Timeouts are seconds. Raises Failure.

    `sql` is ours, where the application has no file of its own; `expected` is the SHA-256 of the application's, as
    the plan saw it. `adopted`: somebody ran it by hand, so only enter it.
    """
    own = files.read(f"{app_dir}/migrations/{name}")
    if sql is None and files.sha256(own) != expected:
        raise Failure(f"migrations/{name} was changed by somebody else just now; run again")
    text = files.text(own or b"") if sql is None else sql
    control = re.search(r"^\s*(BEGIN|COMMIT|ROLLBACK|START\s+TRANSACTION)\s*;", text, re.IGNORECASE | re.MULTILINE)
    if control and not adopted:
        raise Failure(f"migrations/{name} holds its own {control[1]}; take it out: we run it in one transaction")
    sha = files.sha256(files.content(text))
    script = f"""
        BEGIN;
        SET LOCAL lock_timeout = '{lock_timeout}s';
        SET LOCAL statement_timeout = '{statement_timeout}s';
        CREATE SCHEMA IF NOT EXISTS ai_admin_deploy;
        CREATE TABLE IF NOT EXISTS {LEDGER} (
          name text PRIMARY KEY, sha256 text NOT NULL, adopted boolean NOT NULL,
          applied_at timestamptz NOT NULL DEFAULT now());
        {"" if adopted else text}
        ;
        INSERT INTO {LEDGER} (name, sha256, adopted) VALUES ('{name}', '{sha}', {adopted});
        COMMIT;
    """
    for attempt in range(TRIES):
        done = psql(database, script, LONG)
        if done.status == 0:
            return
        error = next(
            (line for line in done.stderr.splitlines() if re.search("ERROR|FATAL|could not", line)), done.stderr
        )
        if "lock timeout" not in error:
            raise Failure(f"the migration failed, and the database is as it was: {error.strip()}")
        if attempt < TRIES - 1:
            time.sleep(2**attempt)  # others get their turn: 1, 2, 4 s
    raise Failure(
        f"the migration waited {TRIES} times {lock_timeout} s for the table companies, and the database is as it was; "
        f"in the way: {blockers(database)}. End it, or run again later"
    )
