"""A database at a provider's, as Supabase has it: TLS with a CA of its own, no superuser, and a pooler before it.

It is a PostgreSQL of its own beside the host's, and pgbouncer in transaction mode; the application uses it.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

import channel
import remote.look
from credentials import load
from remote import wire
from tests.converge.conftest import APP, QUICK, differing, only, owned, read, refuse, verify, write
from tests.converge.test_bad_input import shown
from tests.converge.test_leaks import written_on
from tests.converge.watcher import START
from tests.rehearsal.host import Host, until
from tests.rehearsal.story import EVERYTHING, Deployed, deploy, tokens

pytestmark = [pytest.mark.slow, pytest.mark.long]

STEP = "Database migration"
NAME = "add_marketplace_fields_to_companies.sql"
FILE = f"{APP}/migrations/{NAME}"
SITE = "db.rehearsal.test"
CA = "/etc/hosted/ca.crt"
PASSWORD = f"{START}{secrets.token_hex(12)}@/:%"
QUOTED = PASSWORD.replace("%", "%25").replace("@", "%40").replace("/", "%2F").replace(":", "%3A")
DIRECT = f"postgresql://postgres:{QUOTED}@{SITE}:5433/postgres"
POOLER = f"postgresql://postgres:{QUOTED}@{SITE}:6543/postgres?pgbouncer=true&connection_limit=1&schema=public"

CERTIFICATES = f"""
mkdir /etc/hosted && cd /etc/hosted
request='openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
for ca in ca another; do $request -x509 -days 9 -subj "/CN=$ca" -keyout $ca.key -out $ca.crt; done
echo subjectAltName=DNS:{SITE} > names
$request -subj /CN=db -keyout server.key -out server.csr
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -days 9 -extfile names -out server.crt
chown postgres server.key
echo '127.0.0.1 {SITE} other.rehearsal.test' >> /etc/hosts
"""
POSTGRES = """
cd /
pg_createcluster 17 hosted -p 5433 -- --username=supabase_admin > /dev/null
folder=/etc/postgresql/17/hosted
printf '%s\\n' 'local all supabase_admin trust' 'local all postgres scram-sha-256' \\
  'hostssl all all 127.0.0.1/32 scram-sha-256' > $folder/pg_hba.conf
printf '%s\\n' 'ssl = on' "ssl_cert_file = '/etc/hosted/server.crt'" "ssl_key_file = '/etc/hosted/server.key'" \\
  "log_statement = 'all'" > $folder/conf.d/hosted.conf
systemctl start postgresql@17-hosted
"""
# As Supabase gives them: `postgres` owns the database, and is no superuser.
ROLES = f"""
SET log_statement = none;
CREATE ROLE postgres LOGIN CREATEROLE CREATEDB BYPASSRLS PASSWORD '{PASSWORD}';
CREATE ROLE anon; CREATE ROLE authenticated; CREATE ROLE service_role BYPASSRLS;
GRANT anon, authenticated, service_role TO postgres;
ALTER DATABASE postgres OWNER TO postgres;
CREATE SCHEMA extensions;
ALTER ROLE postgres SET search_path = "$user", public, extensions;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
RESET log_statement;
SET ROLE postgres;
"""
# `one` has a single session, which everybody gets as the last one left it; of `postgres` each transaction gets another.
PGBOUNCER = """
[databases]
one = host=127.0.0.1 port=5433 dbname=postgres pool_size=1
postgres = host=127.0.0.1 port=5433 pool_size=3 min_pool_size=3
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = 6543
unix_socket_dir = /run/postgresql
pool_mode = transaction
server_round_robin = 1
server_tls_sslmode = require
client_tls_sslmode = require
client_tls_cert_file = /etc/hosted/server.crt
client_tls_key_file = /etc/hosted/server.key
auth_type = scram-sha-256
auth_file = /etc/hosted/users
admin_users = postgres
logfile = /var/log/postgresql/pgbouncer.log
pidfile = /run/postgresql/pgbouncer.pid
"""
# The same behind a network of its own, as a provider's is.
FAR = "10.99.0.2"
FAR_PGBOUNCER = (
    PGBOUNCER.replace("listen_addr = 127.0.0.1", f"listen_addr = {FAR}")
    .replace("host=127.0.0.1", "host=/run/postgresql")
    .replace("unix_socket_dir = /run/postgresql", "unix_socket_dir =")
    .replace("pgbouncer.", "far.")
)
FAR_NETWORK = """
ip netns add far
ip link add near type veth peer name far netns far
ip addr add 10.99.0.1/30 dev near
ip link set near up
ip -n far addr add 10.99.0.2/30 dev far
ip -n far link set far up
cat > /etc/pgbouncer/far.ini
ip netns exec far runuser -u postgres -- pgbouncer -q -d /etc/pgbouncer/far.ini
"""
OF_APP = f"""
sed -i 's/^POSTGRES_HOST=.*/POSTGRES_HOST={SITE}/; s/^POSTGRES_PORT=.*/POSTGRES_PORT=5433/
  s/^POSTGRES_USER=.*/POSTGRES_USER=postgres/; s|^POSTGRES_PASSWORD=.*|POSTGRES_PASSWORD="{PASSWORD}"|
  /^POSTGRES_HOST/i PGSSLMODE=no-verify' {APP}/.env
"""


def sql(host: Host, statement: str) -> str:
    psql = "psql -XAtq -v ON_ERROR_STOP=1 -h /run/postgresql -p 5433 -U supabase_admin -d postgres"
    return host.ssh(f"cd /; {psql}", input=statement).stdout.strip()


def through_pooler(host: Host, database: str, statement: str) -> str:
    psql = 'read -r PGPASSWORD; export PGPASSWORD; psql -XAtq -v ON_ERROR_STOP=1 "{}" -f -'
    url = f"sslmode=require host={SITE} port=6543 dbname={database} user=postgres"
    return host.ssh(psql.format(url), input=f"{PASSWORD}\n{statement}").stdout.strip()


@pytest.fixture(scope="module")
def hosted(host: Host) -> Host:
    """The application uses it; the host's own PostgreSQL runs too, as it did."""
    host.ssh("sh -eu", input=CERTIFICATES + POSTGRES)
    dump = "cd /; runuser -u postgres -- pg_dump --no-owner --no-acl --restrict-key=x -t companies postgres"
    sql(host, ROLES + host.ssh(dump).stdout)
    host.ssh("cat > /etc/pgbouncer/pgbouncer.ini", input=PGBOUNCER)
    host.ssh("umask 077; cat > /etc/hosted/users; chown postgres /etc/hosted/users", input=f'"postgres" "{PASSWORD}"\n')
    host.ssh("systemctl start pgbouncer")
    host.ssh("sh -eu", input=OF_APP)
    return host


@pytest.fixture
def inventory(tmp_path: Path) -> str:
    """As an operator with a hosted database writes it."""
    file = tmp_path / "hosted.py"
    file.write_text(
        "from tests.rehearsal.inventory import rehearsal as hosts\n"
        f"rehearsal = [(name, {{**data, 'database_ca': {CA!r}}}) for name, data in hosts]\n"
    )
    return str(file)


def migrated(host: Host, url: str, *arguments: str) -> Deployed:
    return deploy(host, *QUICK, *arguments, environment={"DATABASE_URL": url}, runbook=only(STEP))


def refused(host: Host, url: str, *arguments: str) -> str:
    """The one line that a run said."""
    lines = shown(refuse(host, *arguments, environment={"DATABASE_URL": url}, runbook=only(STEP)))
    told = [line for line in lines if not line.endswith("secrets: DATABASE_URL from your environment")]
    assert len(told) == 1 and START not in told[0], lines
    return told[0]


def reading(host: Host, url: str, ca: str = "") -> str:
    """Why the database cannot be read; empty where it can. A look alone: a whole run takes ten times as long."""
    database = load({"DATABASE_URL": url}, Path("/nonexistent")).database(ca)
    question = {"app_dir": APP, "database": database, "name": NAME, "own": ""}
    call = channel.message(remote.look.show, questions={"migration": question})
    answer = wire.unpack(host.ssh(channel.PYTHON.get_raw_value(), input=call).stdout)
    return str(answer["readings"]["migration"].get("error", ""))


# --- nobody named it


def test_the_plan_names_the_database_that_the_application_names(hosted: Host) -> None:
    done = deploy(hosted, "--dry")
    own = f"{SITE} (POSTGRES_HOST in .env, TLS: not named)"
    assert f"the application's own database is {own}, and this one is the server's" in done.output
    assert START not in done.output
    hosted.ssh("systemctl stop postgresql@17-main")
    try:
        lines = shown(refuse(hosted))
    finally:
        hosted.ssh("systemctl start postgresql@17-main")
    assert len(lines) == 1 and f"the application's own database is {own}: set DATABASE_URL" in lines[0], lines


# --- the story


# Newer than the real one, so it is called: it notes how, and becomes the real one.
SPY = """#!/bin/sh
{ tr '\\0' '\\n' < /proc/$$/cmdline; tr '\\0' '\\n' < /proc/$$/environ; } >> /root/asked
exec /usr/lib/postgresql/17/bin/psql "$@"
"""


def test_the_password_is_seen_nowhere(hosted: Host, inventory: str) -> None:
    """tests/converge/test_leaks.py looks at the rest of a deploy."""
    hosted.ssh(
        "mkdir -p /usr/lib/postgresql/99/bin; cd /usr/lib/postgresql/99/bin; cat > psql; chmod +x psql", input=SPY
    )
    try:
        noisy = ("-vvv", "--debug", "--diff")
        own = {"DATABASE_URL": DIRECT}
        done = deploy(hosted, *QUICK, *noisy, environment=own, inventory=inventory, runbook=only(STEP))
        verified = verify(hosted, inventory, DATABASE_URL=DIRECT)
    finally:
        hosted.ssh("rm -r /usr/lib/postgresql/99")
    assert (done.code, done.changed) == (0, [STEP]), done.output
    asked = hosted.ssh("cat /root/asked; rm /root/asked").stdout
    assert asked.count("PGSERVICE=target") >= 2, "a look and a step"
    lines = [line for line in asked.splitlines() if not line.startswith("PGPASSWORD=")]  # verification's, root's alone
    assert START not in "\n".join(lines)
    assert START not in done.output + verified.output
    needles = [PASSWORD.encode(), QUOTED.encode()]
    kept = {str(file) for file in written_on(hosted) if any(needle in content(file) for needle in needles)}
    own_files = re.compile(r".*(/opt/ai-admin/\.env|/etc/hosted/users)")
    assert {file for file in kept if not own_files.fullmatch(file)} == set(), "where the test put it, and nowhere else"


def content(file: Path) -> bytes:
    """Empty where it is no more: PostgreSQL works on."""
    with suppress(OSError):
        return file.read_bytes()
    return b""


def test_story(hosted: Host, inventory: str) -> None:
    """Deploy, again, verification: over TLS that is checked."""
    before = own_database(hosted)
    environment = {"DATABASE_URL": DIRECT, **tokens()}
    done = deploy(hosted, *QUICK, environment=environment, inventory=inventory)
    assert (done.code, done.changed) == (0, [each for each in EVERYTHING if each != STEP]), done.output
    again = deploy(hosted, *QUICK, environment=environment, inventory=inventory)
    assert (again.code, again.changed) == (0, []), again.output
    assert columns(hosted, "public") == 34
    assert sql(hosted, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == "postgres"
    assert own_database(hosted) == before
    verified = verify(hosted, inventory, DATABASE_URL=DIRECT)
    assert (verified.code, {*verified.rows.values()}) == (0, {"ready"}), verified.output
    assert START not in done.output + again.output + verified.output


def own_database(host: Host) -> str:
    """The host's own."""
    dump = "pg_dump --restrict-key=x postgres | sha256sum"
    return host.ssh(f"cd /; runuser -u postgres -- {dump}").stdout


# --- who is on the other side


def with_host(name: str, parameters: str = "", password: str = QUOTED) -> str:
    return f"postgresql://postgres:{password}@{name}:5433/postgres{parameters}"


@pytest.mark.parametrize(
    ("url", "ca", "said", "remedy"),
    [
        (
            DIRECT,
            "/etc/hosted/another.crt",
            "certificate verify failed",
            "get that file again from the database's prov",
        ),
        (
            DIRECT,
            "/etc/hosted/none.crt",
            '"/etc/hosted/none.crt" does not exist',
            "put the database's CA certificate there, on",
        ),
        (DIRECT, "/etc/hosted/names", "could not read root certificate file", "name the right file: database_ca"),
        (with_host("other.rehearsal.test"), CA, "does not match host name", "put a name from the certificate into"),
        (f"{DIRECT}?sslmode=verify-full", "", '/root.crt" does not exist', "or name the right file: database_ca"),
        (f"{DIRECT}?sslmode=disable", "", "no encryption", "write sslmode=require into DATABASE_URL"),
        (with_host(SITE, "", "wrong"), CA, "password authentication failed", "correct the user and the password"),
        (
            with_host("no.rehearsal.test"),
            CA,
            "could not translate host name",
            "correct DATABASE_URL until psql connects",
        ),
    ],
)
def test_refused_in_one_line(hosted: Host, url: str, ca: str, said: str, remedy: str) -> None:
    line = reading(hosted, url, ca)
    assert said in line and remedy in line and "\n" not in line and START not in line


def test_a_run_is_refused_in_one_line(hosted: Host) -> None:
    before = owned(hosted)
    line = refused(hosted, DIRECT, "--data", "database_ca=/etc/hosted/another.crt")
    assert "certificate verify failed (it is not signed by the CA that database_ca or sslrootcert names: get" in line
    assert differing(before, owned(hosted)) == set()


@pytest.mark.parametrize(
    ("url", "ca"),
    [
        (f"{DIRECT}?sslmode=verify-full&sslrootcert={CA}", ""),
        (with_host("other.rehearsal.test", "?sslmode=verify-ca"), CA),
        (f"{DIRECT}?ssl=true", ""),
        (f"{DIRECT}?sslmode=no-verify&uselibpqcompat=true", ""),
    ],
)
def test_let_in(hosted: Host, url: str, ca: str) -> None:
    assert reading(hosted, url, ca) == ""


def test_verification_says_who_is_not_trusted(hosted: Host) -> None:
    verified = verify(hosted, DATABASE_URL=f"{DIRECT}?sslmode=verify-full&sslrootcert=/etc/hosted/another.crt")
    assert verified.rows["Database"] == "failing"
    assert "certificate verify failed" in " ".join(verified.output.split())
    assert START not in verified.output


def test_a_remedy_reaches_the_same_database(hosted: Host, inventory: str) -> None:
    sql(hosted, "ALTER TABLE public.companies RENAME name TO title")
    verified = verify(hosted, inventory, DATABASE_URL=DIRECT)
    sql(hosted, "ALTER TABLE public.companies RENAME title TO name")
    assert verified.rows["Database"] == "failing"
    typed = 'psql "$DATABASE_URL" -c "ALTER TABLE companies ADD COLUMN IF NOT EXISTS name text"'
    assert typed in " ".join(verified.output.split())


# --- a pooler, by transaction


@pytest.fixture
def salon(hosted: Host, request: pytest.FixtureRequest) -> Iterator[str]:
    """The application's role finds a table `companies` of its own that lacks all: only by its search_path."""
    name = str(request.param)
    sql(
        hosted,
        f"""CREATE ROLE {name}; SET ROLE postgres; CREATE SCHEMA {name}; GRANT USAGE ON SCHEMA {name} TO {name};
        CREATE TABLE {name}.companies (id serial PRIMARY KEY, yclients_id integer UNIQUE, name text); RESET ROLE;
        ALTER ROLE {name} SET search_path = {name};""",
    )
    hosted.ssh(f"sed -i 's/^POSTGRES_USER=.*/POSTGRES_USER={name}/' {APP}/.env")
    yield name
    hosted.ssh(f"sed -i 's/^POSTGRES_USER=.*/POSTGRES_USER=postgres/' {APP}/.env")
    sql(hosted, f"DROP SCHEMA {name} CASCADE; DROP OWNED BY {name}; DROP ROLE {name};")


def columns(host: Host, schema: str) -> int:
    found = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'companies' AND table_schema"
    return int(sql(host, f"{found} = '{schema}'"))


@pytest.mark.parametrize("salon", ["one", "salons"], indirect=True)
def test_through_a_pooler(hosted: Host, salon: str) -> None:
    """`one`: nobody's session is left changed. `postgres`: nothing is expected of the session before."""
    database = "one" if salon == "one" else "postgres"
    url = POOLER.replace("/postgres?", f"/{database}?")
    before = through_pooler(hosted, database, "SHOW search_path; SHOW lock_timeout; SHOW statement_timeout;")
    done = migrated(hosted, url)
    assert (done.code, done.changed) == (0, [STEP]), done.output
    assert columns(hosted, salon) == 3 + 13
    assert through_pooler(hosted, database, "SHOW search_path; SHOW lock_timeout; SHOW statement_timeout;") == before
    again = migrated(hosted, url)
    assert (again.code, again.changed) == (0, []), again.output


@pytest.mark.parametrize("salon", ["large"], indirect=True)
def test_an_index_that_needs_a_session_is_refused_through_a_pooler(hosted: Host, salon: str) -> None:
    sql(hosted, f"UPDATE pg_class SET reltuples = 1000000 WHERE oid = '{salon}.companies'::regclass")
    port_alone = POOLER.partition("?")[0]
    for url in (POOLER, port_alone):
        line = refused(hosted, url)
        assert "CREATE INDEX CONCURRENTLY" in line and "use the database's direct address" in line
    assert columns(hosted, salon) == 3
    assert migrated(hosted, DIRECT).changed == [STEP]
    assert migrated(hosted, POOLER).changed == []


# --- silence

ASLEEP = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
LISTENER = """import socket
with socket.create_server(("127.0.0.1", 6544)) as server:
    print("listens", flush=True)
    kept = []
    while True:
        kept.append(server.accept())"""


@pytest.fixture
def silent(hosted: Host) -> Iterator[str]:
    """Accepts each connection, and says nothing."""
    command = [*hosted.ssh_command(), "exec timeout 300 python3 -"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdin and listener.stdout
        listener.stdin.write(LISTENER)
        listener.stdin.close()
        assert listener.stdout.readline() == "listens\n"
        yield DIRECT.replace(":5433/", ":6544/")
        hosted.ssh("pkill -f -x 'timeout 300 python3 -'")


def test_a_database_that_accepts_and_says_nothing(hosted: Host, silent: str) -> None:
    started = time.monotonic()
    assert "timeout expired (it accepts and does not answer: is the database paused" in refused(hosted, silent)
    verified = verify(hosted, DATABASE_URL=silent)
    assert time.monotonic() - started < 120
    assert verified.rows["Database"] == "failing"
    assert "timeout expired" in " ".join(verified.output.split())


def test_a_pooler_that_waits_for_its_database(hosted: Host) -> None:
    through_pooler(hosted, "pgbouncer", "PAUSE postgres")
    try:
        assert "psql did not end within 30 s (it accepts and does not answer" in reading(hosted, POOLER)
    finally:
        through_pooler(hosted, "pgbouncer", "RESUME postgres")


@pytest.mark.parametrize("salon", ["torn"], indirect=True)
@pytest.mark.parametrize("url", [DIRECT, POOLER], ids=["direct", "pooler"])
def test_a_database_that_goes_in_the_middle(hosted: Host, salon: str, url: str) -> None:
    """Nobody knows whether it got to the end; the next run sees."""
    text = read(hosted, FILE).decode()
    write(hosted, FILE, f"{text}\nSELECT pg_sleep(300);")
    try:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(refuse, hosted, environment={"DATABASE_URL": url}, runbook=only(STEP))
            until(120, "the migration", lambda: bool(sql(hosted, ASLEEP)))
            hosted.ssh(f"kill -9 {sql(hosted, ASLEEP)}")
            output = running.result()
    finally:
        write(hosted, FILE, text)
        ready = "pg_isready -h /run/postgresql -p 5433"
        until(60, "the database", lambda: hosted.ssh(ready, check=False).returncode == 0)
    said = "the connection to the database was lost during the migration; run again, to see what was applied: "
    assert said in output
    assert columns(hosted, salon) == 3
    assert migrated(hosted, url).changed == [STEP]


@pytest.fixture
def far(hosted: Host) -> Iterator[str]:
    hosted.ssh(f"sh -euc '{FAR_NETWORK}'", input=FAR_PGBOUNCER)
    yield f"{POOLER}&hostaddr={FAR}"
    hosted.ssh("kill $(cat /run/postgresql/far.pid); ip netns delete far")
    until(60, "the migration's end", lambda: not sql(hosted, ASLEEP))


@pytest.mark.parametrize("salon", ["cut"], indirect=True)
def test_a_network_that_carries_nothing_any_more(hosted: Host, salon: str, far: str) -> None:
    """Without a probe of ours it would take statement_timeout for each statement: here four minutes, else twenty."""
    text = read(hosted, FILE).decode()
    write(hosted, FILE, f"{text}\nSELECT pg_sleep(300);")
    environment = {"DATABASE_URL": far}
    slow = ("--data", "statement_timeout=10")
    try:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(refuse, hosted, *slow, environment=environment, runbook=only(STEP))
            until(120, "the migration", lambda: bool(sql(hosted, ASLEEP)))
            hosted.ssh("ip -n far route add blackhole 10.99.0.1/32")
            started = time.monotonic()
            output = running.result()
    finally:
        write(hosted, FILE, text)
    assert time.monotonic() - started < 120
    assert "the connection to the database was lost during the migration" in output
    assert columns(hosted, salon) == 3


def test_an_application_database_that_cannot_be_asked_is_not_ready(hosted: Host) -> None:
    """Who has no DATABASE_URL here migrates the host's own database, which the application does not use. TLS that its
    source asks for is not tried: nobody knows whom that trusts, and the password would go there."""
    assert deploy(hosted, *QUICK, runbook=only(STEP)).code == 0
    hosted.ssh(f"cd {APP}; cp -a .env /root/; sed -i /^PGSSLMODE/d .env")
    try:
        verified = verify(hosted)
    finally:
        hosted.ssh(f"mv /root/.env {APP}/.env")
    said = " ".join(verified.output.split())
    assert verified.rows["Database"] == "failing", verified.output
    assert "is not the host's own, and cannot be queried: no pg_hba.conf entry" in said, said
