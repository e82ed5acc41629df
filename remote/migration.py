"""The marketplace migration: what the database holds of it, and the step that runs what lacks, whole or not at all."""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence

from remote import Failure, dotenv, files
from remote.processes import Done, require, run
from remote.readings import Applied

CLIENTS = "/usr/lib/postgresql"
SOCKET = "/run/postgresql/.s.PGSQL.5432"
SCHEMA = "ai_admin_deploy"
LEDGER = f"{SCHEMA}.migrations"
TRIES = 4
# PostgreSQL's messages are in the language of the host when it was installed (17: lc_messages, of initdb), and only a
# superuser may change that. psql's follow LC_ALL.
ENGLISH = """DO $$ BEGIN
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN SET lc_messages = 'C'; END IF;
END $$;
"""
ALONE = "SELECT pg_advisory_xact_lock(hashtext('ai-admin-deploy'))"  # hosts that share the database, one at a time
MEANWHILE = "was applied meanwhile, by the deploy of another host with this database"
LONG = 3600  # seconds; the database's own limits end an index build sooner

# Seconds after which a network that carries nothing any more counts as gone; libpq's own default is hours.
SILENCE = {"keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3", "tcp_user_timeout": "25000"}
# What libpq 17 says of a database elsewhere, and what to do about it: the first that matches.
REMEDIES = {
    "authentication failed|enant or user not found": "correct the user and the password in DATABASE_URL",
    "no password supplied": "write the password into DATABASE_URL",
    "root certificate file .* does not exist|could not read root cert": "put the database's CA certificate "
    "there, on this server (its provider has it), or name the right file: database_ca",
    "certificate verify failed": "it is not signed by the CA that database_ca or sslrootcert names: get that file "
    "again from the database's provider; sslmode=require in DATABASE_URL skips the check",
    "does not match host name": "put a name from the certificate into DATABASE_URL, or sslmode=verify-ca",
    "does not support SSL": "is that the database's port? a database without TLS: sslmode=disable in DATABASE_URL",
    "no encryption|SSL off|SSL connection is required": "write sslmode=require into DATABASE_URL",
    "timeout expired|did not end within|timed out": "it accepts and does not answer: is the database paused, is it the "
    "right port in DATABASE_URL, does a firewall let this server in?",
    "Network is unreachable": "this server has no IPv6? Supabase's direct address has no IPv4, its session pooler has",
}
CONNECTS = "correct DATABASE_URL until psql connects with it on this server"
# And of the host's own.
LOCAL_REMEDIES = {
    "no password supplied|authentication failed": "it wants a password of its own user postgres: write `local all "
    "postgres peer` as the first rule of its pg_hba.conf, and reload it; or set DATABASE_URL with that password",
}
# The connection went in the middle: PostgreSQL may or may not have got to the COMMIT. Not so where it had not come
# about yet, or where PostgreSQL itself says that it ends.
LOST = "connection to server was lost|conn crashed|did not end within"
NOT_LOST = "connection to server at|terminating connection"
# Where the application's `.env` may name its database; the first that is there counts.
NAMES = ("DATABASE_URL", "POSTGRES_URL", "POSTGRES_HOST", "DB_HOST", "PGHOST", "SUPABASE_URL")


def psql(database: Mapping[str, str] | None, script: str, timeout: float = 30) -> Done:
    """psql 17: as the OS user postgres over the socket, or to `database`, libpq's own keywords.

    Those come as a service file in memory: the password is in no argument, environment or file. `-X` leaves the
    operator's .psqlrc out of it.
    """
    options = ("-wXAtq", "-v", "ON_ERROR_STOP=1", "-f", "-")  # -w: it would take the script for a password
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PGCONNECT_TIMEOUT": "10", "PGCLIENTENCODING": "UTF8"}
    # Debian's own `psql` is a Perl program that looks for a cluster, and then for one of these: 35 of its 40 ms
    versions = sorted(files.names(CLIENTS), key=lambda name: int(re.sub(r"\D", "", name) or 0))
    real = [f"{CLIENTS}/{version}/bin/psql" for version in versions] if database or os.path.exists(SOCKET) else []
    program = next((path for path in reversed(real) if os.path.exists(path)), "psql")
    stdin = files.content(script)
    if database is None:
        stdin = files.content(ENGLISH) + stdin
        try:
            return run(program, *options, "-d", "postgres", stdin=stdin, env=env, timeout=timeout, user="postgres")
        except KeyError:
            return Done(1, b"", "error: this host has no user postgres")
    lines = ["[target]", *(f"{key}={value}" for key, value in {**SILENCE, **database}.items()), ""]
    service = os.memfd_create("service")
    try:
        os.write(service, files.content("\n".join(lines)))
        env |= {"PGSERVICEFILE": f"/dev/fd/{service}", "PGSERVICE": "target"}
        return run(program, *options, stdin=stdin, env=env, timeout=timeout, fds=[service])
    finally:
        os.close(service)


def identifier(*names: str) -> str:
    """As an SQL name, such as "schema"."table"."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(text: str) -> str:
    """As an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _user(env: Mapping[str, str]) -> str:
    """The role that the application's own `.env` names; empty where it names none."""
    url = re.match(r"postgres(?:ql)?://([^:@/]+)", env.get("DATABASE_URL") or env.get("POSTGRES_URL", ""))
    return env.get("POSTGRES_USER") or env.get("DB_USER") or env.get("PGUSER") or (url[1] if url else "")


def elsewhere(env: Mapping[str, str]) -> str:
    """The database that this `.env` names, without user and password; empty where it names none, or the host's own."""
    key = next((key for key in NAMES if env.get(key)), "")
    before = r"(?:postgres(?:ql)?|https)://(?:.*@|(?!.*@))" if key.endswith("_URL") else ""
    found = re.match(rf"{before}((?:\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::\d+)?)(?![\w@.-])", env.get(key, ""))
    if not found or re.match(r"localhost\b|127\.|\[::1\]", found[1]):
        return ""
    mode = re.search(r"[?&]ssl(?:mode)?=([\w-]+)|^(https)", env[key])
    return f"{found[1]} ({key} in .env, TLS: {mode[1] or mode[2] if mode else 'not named'})"


def read(*, app_dir: str, database: Mapping[str, str] | None, name: str, own: str) -> Applied:
    """What the database holds of all that the file names: no HTTP route tells. Raises Failure.

    `own` stands for the application's file where it has none. Names are found as the application's role finds them.
    """
    env = dotenv.load(f"{app_dir}/.env")
    other = elsewhere(env) if database is None else ""
    try:
        require("psql")
        return {**_read(app_dir, database, name, own, _user(env)), "elsewhere": other}
    except Failure as error:
        if not other:
            raise
        raise Failure(f"{error}; the application's own database is {other}: set DATABASE_URL") from None


def _read(app_dir: str, database: Mapping[str, str] | None, name: str, own: str, user: str) -> Applied:
    file = files.read(f"{app_dir}/migrations/{name}")
    text = own if file is None else files.text(file)
    # the host has no parser of SQL: any word may be a name, and PostgreSQL knows which are
    words = {*re.findall(r"\w+", text.lower()), *re.findall(r'"(\w[\w $.-]*)"', text), "companies"}
    named = "ARRAY[" + ", ".join(literal(word) for word in sorted(words)) + "]"
    user = literal(user)
    # one transaction: a pooler may give the next one to another session, and this one, as we leave it, to others
    done = psql(
        database,
        f"""
        BEGIN READ ONLY;
        SELECT exists(SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
            WHERE (nspname, relname) = ('{SCHEMA}', 'migrations')
              AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')) AS ledger,
          set_config('search_path', coalesce(
          (SELECT replace(coalesce(
              (SELECT substr(setting, 13) FROM pg_db_role_setting, unnest(setconfig) AS setting
               WHERE setting LIKE 'search_path=%' AND setrole IN (r.oid, 0)
                 AND setdatabase IN ((SELECT oid FROM pg_database WHERE datname = current_database()), 0)
               ORDER BY setrole = 0, setdatabase = 0 LIMIT 1),
              current_setting('search_path')), '"$user"', quote_ident(rolname))
           FROM pg_roles r WHERE rolname = {user}), current_setting('search_path')), true) AS path \\gset
        \\if :ledger
          SELECT sha256 AS sha FROM {LEDGER} WHERE name = {literal(name)} UNION ALL SELECT '' LIMIT 1 \\gset
        \\else
          \\set sha ''
        \\endif
        WITH roles AS (
          SELECT oid, rolname FROM pg_roles WHERE NOT rolsuper AND rolname <> current_user
            AND (rolname = {user} OR oid = (SELECT relowner FROM pg_class WHERE oid = to_regclass('companies')))
        ), tables AS (
          SELECT c.oid, nspname, relowner,
            CASE WHEN pg_table_is_visible(c.oid) THEN '' ELSE nspname || '.' END || relname AS name,
            CASE relkind WHEN 'r' THEN greatest(reltuples, pg_stat_get_live_tuples(c.oid), 0) ELSE 0 END::bigint AS rows
          FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
          WHERE relname = ANY ({named}) AND (pg_table_is_visible(c.oid) OR nspname = ANY ({named}))
            AND relkind NOT IN ('i', 'I', 'c', 't') AND nspname NOT IN ('pg_catalog', 'information_schema')
        )
        SELECT json_build_object(
          'applied', nullif(:'sha', ''), 'search_path', :'path',
          'keeps', CASE WHEN to_regnamespace('{SCHEMA}') IS NULL
            THEN has_database_privilege(current_database(), 'CREATE')
            ELSE has_schema_privilege('{SCHEMA}', 'USAGE') AND coalesce(
              (SELECT bool_and(has_table_privilege(c.oid, p))
               FROM pg_class c, unnest(array['SELECT', 'INSERT', 'UPDATE']) AS p
               WHERE relnamespace = to_regnamespace('{SCHEMA}') AND relname = 'migrations'),
              has_schema_privilege('{SCHEMA}', 'CREATE')) END,
          'creates', coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
          'roles', array(SELECT rolname FROM roles ORDER BY 1),
          'functions', array(SELECT DISTINCT unnest(array[nspname || '.' || proname,
              CASE WHEN pg_function_is_visible(p.oid) THEN proname END])
            FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace AND nspname <> 'pg_catalog'
            WHERE proname = ANY ({named})),
          'types', array(SELECT unnest(array[nspname || '.' || typname,
              CASE WHEN pg_type_is_visible(t.oid) THEN typname END])
            FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace AND nspname <> 'pg_catalog'
            WHERE typname = ANY ({named})),
          'relations', coalesce((SELECT json_object_agg(name, json_build_object(
            'schema', nspname, 'rows', rows,
            'owner', CASE WHEN pg_has_role(relowner, 'USAGE') THEN '' ELSE pg_get_userbyid(relowner) END,
            'columns', (SELECT coalesce(json_object_agg(attname, array[typname, typcategory::text]), '{{}}')
              FROM pg_attribute a JOIN pg_type ON pg_type.oid = atttypid
              WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped),
            'indexes', (SELECT coalesce(json_object_agg(relname, indisvalid), '{{}}')
              FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = t.oid),
            'triggers', array(SELECT tgname FROM pg_trigger WHERE tgrelid = t.oid AND NOT tgisinternal),
            'constraints', array(SELECT conname FROM pg_constraint WHERE conrelid = t.oid),
            'denied', array(SELECT rolname FROM roles r WHERE
              NOT (SELECT bool_and(has_table_privilege(r.oid, t.oid, p))
                FROM unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p)
              OR EXISTS (SELECT FROM pg_depend JOIN pg_class s ON s.oid = objid WHERE refobjid = t.oid AND deptype = 'a'
                AND CASE relkind WHEN 'S' THEN NOT has_sequence_privilege(r.oid, s.oid, 'USAGE') END)
              ORDER BY 1)
          )) FROM tables t), '{{}}'));
        COMMIT;
        """,
    )
    if done.status != 0:
        running = "is PostgreSQL running? systemctl status postgresql; a database elsewhere: set DATABASE_URL"
        known, otherwise = (LOCAL_REMEDIES, running) if database is None else (REMEDIES, CONNECTS)
        found = (remedy for pattern, remedy in known.items() if re.search(pattern, done.stderr))
        raise Failure(f"{done.line_with('error')} ({next(found, otherwise)})")
    catalog: Applied = json.loads(done.stdout)
    return {**catalog, "file": None if file is None else text}


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


def guarded(database: Mapping[str, str] | None, script: str, timeout: float = LONG) -> Done:
    """As `psql`, and no command of psql's own (`\\!`, `\\i`) that the script may hold is obeyed.

    `\\restrict` came with psql 13.22, 14.19, 15.14, 16.10, 17.6 and 18. An older one refuses it before anything has
    run, and then PostgreSQL's grammar is the only guard: operations/statements.py.
    """
    done = psql(database, f"\\restrict {os.urandom(16).hex()}\n{script}", timeout)
    return psql(database, script, timeout) if "invalid command \\restrict" in done.stderr else done


def migrate(
    deploy: str,
    *,
    app_dir: str,
    database: Mapping[str, str] | None,
    name: str,
    expected: str | None,
    search_path: str,
    statements: Sequence[str],
    concurrently: Sequence[str],
    seen: str | None,
    enter: str | None,
    adopted: bool,
    lock_timeout: int,
    statement_timeout: int,
) -> dict[str, list[str]]:
    """Run the statements and enter the SHA-256 `enter` in the ledger, all or nothing. Timeouts are seconds.

    Then those of `concurrently`, which no transaction may hold. `expected` is the SHA-256 of the application's file as
    the plan saw it, `seen` that of the ledger. Where another host has entered the same meanwhile, nothing is run.
    `adopted`: somebody ran it by hand. Returns what to tell the operator. Raises Failure.
    """
    if files.sha256(files.read(f"{app_dir}/migrations/{name}")) != expected:
        raise Failure(f"migrations/{name} was changed by somebody else just now; run again")
    ledger = (
        # PostgreSQL 17 wants the right to create for IF NOT EXISTS too
        f"""DO $ledger$ BEGIN
          IF to_regnamespace('{SCHEMA}') IS NULL THEN CREATE SCHEMA {SCHEMA}; END IF;
          IF to_regclass('{LEDGER}') IS NULL THEN CREATE TABLE {LEDGER} (
            name text PRIMARY KEY, sha256 text NOT NULL, adopted boolean NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now()); END IF;
        END $ledger$""",
        f"""DO $seen$ BEGIN
          IF EXISTS (SELECT FROM {LEDGER} WHERE name = {literal(name)} AND sha256 = '{enter}' AND {seen != enter})
          THEN RAISE EXCEPTION '{MEANWHILE}'; END IF;
        END $seen$""",
        f"""INSERT INTO {LEDGER} (name, sha256, adopted) VALUES ({literal(name)}, '{enter}', {adopted})
          ON CONFLICT (name) DO UPDATE
          SET (sha256, adopted, applied_at) = (excluded.sha256, excluded.adopted, excluded.applied_at)""",
    )
    whole = (
        "BEGIN",
        "SET LOCAL lock_timeout = 0",  # the other host's may take as long as ours
        f"SET LOCAL statement_timeout = '{LONG}s'",
        ALONE,
        f"SET LOCAL lock_timeout = '{lock_timeout}s'",
        f"SET LOCAL statement_timeout = '{statement_timeout}s'",
        f"SELECT set_config('search_path', {literal(search_path)}, true)",
        *(ledger if enter else ()),
        *statements,
        "COMMIT",
    )
    # `\;` sends all of them at once: no lock is held while the next one travels
    script = "\n\\;\n".join(whole) + "\n;\n"
    limit = LONG + lock_timeout + statement_timeout * len(whole)  # PostgreSQL gives each statement its own
    for attempt in range(TRIES) if enter or statements else ():
        done = guarded(database, script, limit)
        error = _error(done)
        if not error:
            break
        if re.search(LOST, done.stderr) and not re.search(NOT_LOST, done.stderr):
            raise Failure(
                "the connection to the database was lost during the migration; "
                f"run again, to see what was applied: {error}"
            )
        if "lock timeout" not in error:
            if MEANWHILE in error:
                return {"said": [f"migration: {name} {MEANWHILE}"]}
            raise Failure(f"the migration failed, and the database is as it was: {error}")
        if attempt == TRIES - 1:
            raise Failure(
                f"the migration waited {TRIES} times {lock_timeout} s for the table companies, and the database is as "
                f"it was; in the way: {blockers(database)}. End it, or run again later"
            )
        time.sleep(2**attempt)  # others get their turn: 1, 2, 4 s
    for statement in concurrently:
        # each waits for older transactions, and nobody for it
        limits = f"SET lock_timeout = '{statement_timeout}s';\nSET statement_timeout = '{LONG - 60}s';\n"
        path = f"SELECT set_config('search_path', {literal(search_path)}, false);\n"
        if error := _error(guarded(database, f"{limits}{path}{statement}\n;\n")):
            raise Failure(
                f"the migration is in the database, but not its index: {error} ({statement}); "
                f"at the table companies: {blockers(database)}. Run again: what is half built is dropped first"
            )
    return {}


def _error(done: Done) -> str:
    lines = [line for line in done.stderr.splitlines() if re.search("ERROR|FATAL|could not", line)]
    lines += [done.line_with("error"), f"psql ended with {done.status}"]
    return "" if done.status == 0 else next(line.strip() for line in lines if line.strip())
