"""Verification only reads: it changes nothing on the host, shows no secret, and shares no code with what it judges."""

from __future__ import annotations

import ast
import hashlib
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.detection.conftest import FUNCTIONS, Verified, altered, drift, shell, verify
from tests.rehearsal.host import Host, until
from tests.rehearsal.story import INVENTORY, ROOT, deploy

# Written on an idle host too: the logs of sshd and nginx, and PostgreSQL's own maintenance.
WRITTEN_ANYWAY = ("var/log/", "var/lib/postgresql/", "var/lib/redis/", "opt/ai-admin/logs/")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )


def written(host: Host) -> dict[str, str]:
    """Every file in the host's uppermost layer: all that was written since its image was built."""
    top = host.folder / "upper"
    found = {}
    for parent, _, files in os.walk(top):
        for name in files:
            path = Path(parent, name)
            inner = str(path.relative_to(top))
            if not inner.startswith(WRITTEN_ANYWAY):
                found[inner] = _describe(path)
    return found


def _describe(path: Path) -> str:
    info = path.lstat()
    content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(info.st_mode) else ""
    return f"{stat.filemode(info.st_mode)} {info.st_uid} {info.st_ctime_ns} {content}"


@pytest.mark.slow
def test_nothing_is_changed_on_the_host(ver: Host, sound: Verified, tmp_path: Path) -> None:
    del sound
    sessions = "SELECT count(*), max(updated_at) FROM companies"
    rows = "cd / && runuser -u postgres -- psql -XAtqd postgres -c"
    before, salons = written(ver), ver.ssh(f"{rows} '{sessions}'").stdout
    assert "opt/ai-admin/.env" in before  # the deploy wrote it, so this is the right place
    verify(ver, tmp_path)
    assert written(ver) == before
    assert ver.ssh(f"{rows} '{sessions}'").stdout == salons
    ver.ssh("touch /opt/ai-admin/by-hand")
    assert written(ver).keys() - before.keys() == {"opt/ai-admin/by-hand"}
    ver.ssh("rm /opt/ai-admin/by-hand")


@pytest.mark.slow
def test_later_versions_of_the_application_are_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """A page that refuses a token which is not signed, and a health check made by hand that says a lot more."""
    del sound
    page = "try { jwt.verify(req.query.token, config.jwtSecret); } catch { return res.status(401).send('no'); }"
    changes = (
        f"s|^(  return res.sendFile)|  {page}\\n\\1|;s|^    status: 'ok',|    version: 'x'.repeat(400), status: 'ok',|"
    )
    try:
        shell(ver, f'edit $routes "{changes}"; restart', "host")
        found = verify(ver, tmp_path)
        answer = ver.ssh("curl -s -o /dev/null -w %{http_code} localhost:3000/marketplace/onboarding?token=x").stdout
    finally:
        shell(ver, "back $routes; restart", "host")
    assert answer == "401", "the older version answers any token"
    assert found.code == 0, found.output


@pytest.mark.slow
def test_a_session_pool_that_logs_and_needs_its_environment_is_no_alarm(
    ver: Host, sound: Verified, tmp_path: Path
) -> None:
    """As one that opens a database when it is loaded, which ends the process where there is no password for it."""
    del sound
    needs = "if (!process.env.YCLIENTS_PARTNER_TOKEN) process.exit(1);"
    logs = 'console.info("up"); require("fs").writeSync(1, "{}" + require("os").EOL);'
    found = verified_while(ver, f"edit $pool '1i {needs} {logs}'; restart", "back $pool; restart", tmp_path)
    assert found.code == 0, found.output


@pytest.mark.slow
def test_answers_that_differ_from_themselves_are_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """The time in a 404, a nonce in the page."""
    del sound
    now = 'process.hrtime().join("")'
    none = f"app.use((req, res) => res.status(404).json({{ at: {now} }}));"
    whole = f'String(require("fs").readFileSync(\\1)).replace(/<script>/, "<script nonce=" + {now} + ">")'
    page = rf's|res.sendFile\((.*)\);|res.type("html").send({whole});|'
    edits = f"edit $app/src/index.js \"/^app.use..\\/auth/a {none.replace(chr(34), chr(39))}\"; edit $routes '{page}'"
    found = verified_while(ver, f"{edits}; restart", "back $app/src/index.js; back $routes; restart", tmp_path)
    assert found.code == 0, found.output


@pytest.mark.slow
def test_constraints_that_a_real_salon_meets_are_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    del sound
    number = "ADD CONSTRAINT numbers CHECK (phone ~ '^[+0-9 ]*$') NOT VALID"
    person = "ADD CONSTRAINT people FOREIGN KEY (marketplace_user_id) REFERENCES people NOT VALID"
    made = f'sql "CREATE TABLE people (id varchar(255) PRIMARY KEY); ALTER TABLE companies {person}"'
    gone = 'sql "ALTER TABLE companies DROP CONSTRAINT IF EXISTS numbers; DROP TABLE people CASCADE"'
    for plant in (made, f'sql "ALTER TABLE companies {number}"; {made}'):
        found = verified_while(ver, plant, gone, tmp_path)
        assert found.code == 0, found.output


@pytest.mark.slow
def test_crashes_of_an_hour_that_has_ended_are_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    del sound
    line = 'echo "$(date -d "-$ago minutes" +%Y-%m-%dT%H:%M:%S): PM2 log: App [ai-admin-api:0] exited with code [1]"'
    plant = f"log=/root/.pm2/pm2.log; keep $log; for ago in 50 40 30 20 15; do {line}; done >> $log"
    found = verified_while(ver, plant, "back /root/.pm2/pm2.log", tmp_path)
    assert found.code == 0, found.output


@pytest.mark.slow
def test_what_stands_between_nginx_and_the_api_is_no_second_copy(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """A cache, here another nginx."""
    del sound
    between = "server { listen 127.0.0.1:8089; location / { proxy_pass http://127.0.0.1:3000; } }"
    found = verified_while(
        ver,
        f"echo '{between}' > /etc/nginx/conf.d/between.conf;"
        " edit $site '/location .auth/,/}/s,proxy_pass [^;]*,proxy_pass http://127.0.0.1:8089,'; reload",
        "rm /etc/nginx/conf.d/between.conf; back $site; reload",
        tmp_path,
    )
    assert found.code == 0, found.output


@pytest.mark.slow
def test_a_redis_that_another_unit_starts_is_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    del sound
    found = verified_while(
        ver,
        "systemctl disable -q redis-server; systemctl -q add-requires pm2-root.service redis-server.service",
        "rm -r /etc/systemd/system/pm2-root.service.requires; systemctl daemon-reload;"
        " systemctl enable -q redis-server",
        tmp_path,
    )
    assert found.code == 0, found.output


@pytest.mark.slow
def test_certbots_second_folder_is_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """It names it so where there was one for these names already; the old one stays, and nothing serves it."""
    del sound
    own = "/etc/letsencrypt/renewal/ai-admin.app"
    second = f"cp -a $live $live-0001; cp {own}.conf {own}-0001.conf; edit $site s,$live/,$live-0001/,; reload"
    trusted = ver.root / "etc/letsencrypt/live/ai-admin.app-0001/fullchain.pem"
    try:
        shell(ver, f"{second}; keep_certificate; certificate ai-admin.app 1", "host")
        found = verify(ver, tmp_path, inventory=altered(tmp_path, verify_ca=str(trusted)))
    finally:
        shell(ver, f"back $site; back_certificate; rm -r $live-0001 {own}-0001.conf", "host")
    assert found.code == 0, found.output


BOUGHT = """cp -a $live /etc/ssl/site; mv /etc/letsencrypt/renewal/ai-admin.app.conf /root/
keep_certificate; certificate ai-admin.app 1
edit $site s,$live/,/etc/ssl/site/,; systemctl stop certbot.timer; reload"""
NO_MORE = """back $site; back_certificate; rm -r /etc/ssl/site; systemctl start certbot.timer
mv /root/ai-admin.app.conf /etc/letsencrypt/renewal/; reload"""


@pytest.mark.slow
def test_what_certbot_left_where_another_certificate_is_served_is_no_alarm(
    ver: Host, sound: Verified, tmp_path: Path
) -> None:
    """One that was bought: certbot's own old one for the domain ends in a day, and nothing renews it."""
    del sound
    try:
        shell(ver, BOUGHT, "host")
        found = verify(
            ver, tmp_path, inventory=altered(tmp_path, verify_ca=str(ver.root / "etc/ssl/site/fullchain.pem"))
        )
    finally:
        shell(ver, NO_MORE, "host")
    assert found.code == 0, found.output


@pytest.mark.slow
def test_that_another_domains_renewal_fails_is_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    del sound
    plant = """mkdir $certbot.d; cat > $certbot.d/fail.conf <<'END'
[Service]
ExecStart=
ExecStart=/bin/sh -c 'echo "  /etc/letsencrypt/live/old.example/fullchain.pem (failure)"; exit 1'
END
systemctl daemon-reload; ! systemctl start certbot"""
    gone = "rm -r $certbot.d; systemctl daemon-reload; systemctl reset-failed certbot"
    found = verified_while(ver, plant, gone, tmp_path)
    assert found.code == 0, found.output


@pytest.mark.slow
def test_a_daemon_of_pm2_with_an_older_node_is_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """It was started before the application's Node was brought up to date, which `pm2 start` finds on its PATH."""
    del sound
    fake = "#!/bin/sh\\n[ $1 = --version ] && echo v18.20.4 || exec /usr/bin/node $@\\n"
    plant = f"""exec >/dev/null; mkdir /opt/old; cp /usr/bin/node /opt/old; systemctl stop pm2-root
PATH=/opt/old:$PATH setsid pm2 resurrect 2>&1
on 3000; mv /opt/old/node /opt/old/node18; printf '{fake}' > /opt/old/node; chmod +x /opt/old/node; reload"""
    gone = "exec >/dev/null; pm2 kill; rm -r /opt/old; systemctl start pm2-root; on 3000; reload"
    found = verified_while(ver, plant, gone, tmp_path)
    assert found.code == 0, found.output


OF_ROLE = """CREATE SCHEMA salons AUTHORIZATION ai_admin; ALTER TABLE companies SET SCHEMA salons;
ALTER TABLE marketplace_events SET SCHEMA salons; ALTER TABLE marketplace_tokens SET SCHEMA salons;
CREATE TABLE companies (id int); ALTER ROLE ai_admin SET search_path = salons, public"""
BACK = """DROP TABLE companies; ALTER TABLE salons.companies SET SCHEMA public;
ALTER TABLE salons.marketplace_events SET SCHEMA public; ALTER TABLE salons.marketplace_tokens SET SCHEMA public;
DROP SCHEMA salons; ALTER ROLE ai_admin RESET search_path"""


@pytest.mark.slow
def test_tables_in_a_schema_of_the_applications_role_are_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """Beside an old table of that name, which only others find."""
    del sound
    found = verified_while(ver, f"sql '{OF_ROLE}'; restart", f"sql '{BACK}'; restart", tmp_path)
    assert found.code == 0, found.output


@pytest.mark.slow
def test_ten_seconds_after_a_restart_are_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """nginx passes nothing to the API for so long, where somebody came while its port was closed. (A whole restart may
    take longer on a busy machine: here the API closes and opens its port when it is told to.)"""
    del sound
    page = "curl -sk -o /dev/null -w %{http_code} --resolve ai-admin.app:443:127.0.0.1 https://ai-admin.app/api/none"
    # socket.io would end for good at the server's `close`
    told = "process.on('SIGUSR2', () => { server.removeAllListeners('close');"
    told += " server.listening ? server.close() : server.listen(config.port); });"
    port = "curl -s -o /dev/null localhost:3000/health"
    script = (
        f"kill -USR2 $(pid); while {port}; do sleep 0.05; done; {page}; kill -USR2 $(pid); within 60 {port}; {page}"
    )
    # a line that says one address, as ours do, is never considered down: those that somebody has left or put in are
    shell(ver, "edit $site 's,http://.ai_admin_api;,http://localhost:3000;,'; reload", "host")
    try:
        shell(ver, f'edit $app/src/index.js "\\$ a {told}"; restart', "host")
        for _ in range(5):  # the machine may stand still for as long as nginx holds it
            closed_and_held = ver.ssh("bash", "-s", input=f"{FUNCTIONS}\n{script}\n").stdout
            if closed_and_held == "502502":
                break
        found = verify(ver, tmp_path)
    finally:
        shell(ver, "back $site; back $app/src/index.js; restart; reload", "host")
    assert closed_and_held == "502502"
    assert found.code == 0, found.output


def verified_while(host: Host, plant: str, undo: str, folder: Path) -> Verified:
    try:
        shell(host, plant, "host")
        return verify(host, folder)
    finally:
        shell(host, undo, "host")


@pytest.mark.slow
def test_what_an_editor_leaves_and_a_crash_loop_that_has_ended_are_no_alarm(
    ver: Host, sound: Verified, tmp_path: Path
) -> None:
    del sound
    ended = "$(date -d '-2 minutes' +%Y-%m-%dT%H:%M:%S): PM2 log: App [ai-admin-api:0] exited with code [1]"
    found = verified_while(
        ver,
        f'touch $app/src/.index.js.swp $app/src/index.js~; for i in 1 2 3; do echo "{ended}"; done > /root/log;'
        " keep /root/.pm2/pm2.log; cat /root/log >> /root/.pm2/pm2.log",
        "back /root/.pm2/pm2.log; rm -f $app/src/.index.js.swp $app/src/index.js~ /root/log",
        tmp_path,
    )
    assert found.code == 0, found.output


@pytest.mark.slow
def test_a_dotenv_for_the_group_of_who_runs_the_api_is_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """As `root:app 0640` where app runs it."""
    del sound
    found = verified_while(ver, "chmod 640 $app/.env; restart", "chmod 600 $app/.env; restart", tmp_path)
    assert found.code == 0, found.output


@contextmanager
def forwarded(address: str, target: str) -> Iterator[None]:
    """80 and 443 of an address of this machine lead to the host, as behind a CDN or an address translation."""

    def serve(guest: socket.socket, port: int) -> None:
        with guest, suppress(OSError), socket.create_connection((target, port)) as there:
            back = threading.Thread(target=copy, args=(there, guest))
            back.start()
            copy(guest, there)
            back.join()

    def copy(source: socket.socket, to: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                to.sendall(piece)
            to.shutdown(socket.SHUT_WR)

    def receive(server: socket.socket, port: int) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0], port)).start()

    with ExitStack() as servers:
        for port in (80, 443):
            server = servers.enter_context(socket.create_server((address, port)))
            threading.Thread(target=receive, args=(server, port), daemon=True).start()
            servers.callback(server.shutdown, socket.SHUT_RDWR)
        yield


@pytest.mark.slow
def test_a_site_behind_address_translation_is_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """ "Set the A record to the host's address" would take it off its CDN."""
    del sound
    with forwarded(ver.gateway, ver.address):
        found = verify(ver, tmp_path, inventory=altered(tmp_path, verify_address=ver.gateway))
    assert found.code == 0, found.output


@pytest.mark.slow
def test_certbots_locks_are_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """It makes and removes one in each of these folders at each start, twice a day; its nginx plugin's site includes a
    file of its folder."""
    del sound
    include = "touch /etc/letsencrypt/options-ssl-nginx.conf; tls 'include /etc/letsencrypt/options-ssl-nginx.conf;'"
    locks = "; ".join(
        f"touch {each}/.certbot.lock; rm {each}/.certbot.lock" for each in ("/etc/letsencrypt", "/etc/nginx")
    )
    try:
        shell(ver, f"{include}; {locks}", "host")
        found = verify(ver, tmp_path)
        code, output = drift(ver)
    finally:
        shell(ver, "back $site; rm -f /etc/letsencrypt/options-ssl-nginx.conf; reload", "host")
    assert found.code == 0, found.output
    assert code == 0, output


@pytest.mark.slow
def test_a_crash_loop_that_a_restart_has_ended_is_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """As in an outage: it crashed, somebody deployed, and verifies within the minute."""
    del sound
    found = verified_while(ver, "crash; crash; crash; on 3000; restart", ": > /root/.pm2/pm2.log", tmp_path)
    assert found.code == 0, found.output


@pytest.mark.slow
def test_a_laptop_without_ipv6_is_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """This machine has no address there, so it cannot reach the host's."""
    del sound
    ver.ssh(f"ip -6 address add {ver.six}::2/64 dev host0 nodad")
    try:
        found = verify(ver, tmp_path, inventory=altered(tmp_path, verify_address=f"{ver.address},{ver.six}::2"))
    finally:
        ver.ssh(f"ip -6 address del {ver.six}::2/64 dev host0")
    assert found.code == 0, found.output


@pytest.mark.slow
def test_one_ipv6_socket_for_both_families_is_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """`listen [::]:443 ipv6only=off` is the only line."""
    del sound
    own = r"/listen 443 ssl;/d; s/listen \[::\]:443 ssl;/listen [::]:443 ssl ipv6only=off;/"
    try:
        shell(ver, f"edit $site '{own}'; systemctl restart nginx", "host")
        sockets = ver.ssh("ss -Hltn 'sport = :443'").stdout.split()
        found = verify(ver, tmp_path)
    finally:
        shell(ver, "back $site; systemctl restart nginx", "host")
    assert "*:443" in sockets and "0.0.0.0:443" not in sockets
    assert found.code == 0, found.output


@pytest.mark.slow
def test_a_firewall_against_what_is_no_browser_is_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    del sound
    page = "curl -sk -o /dev/null -w %{http_code} --resolve ai-admin.app:443:127.0.0.1 https://ai-admin.app/"
    try:
        shell(ver, "tls 'if ($http_user_agent !~ Mozilla) { return 403; }'", "host")
        refused = ver.ssh(page).stdout
        found = verify(ver, tmp_path)
    finally:
        shell(ver, "back $site; reload", "host")
    assert refused == "403"
    assert found.code == 0, found.output


@pytest.mark.slow
def test_pytest_alone_runs_the_checks_and_ends(ver: Host, sound: Verified) -> None:
    done = run("-m", "pytest", "-q", f"--hosts=pyinfra://{ver.name}", f"--inventory={INVENTORY}", "tests/verify")
    assert f"{sound.table['checks']} passed" in done.stdout, done.stdout


@pytest.mark.slow
def test_a_dotenv_that_is_a_symlink_is_no_alarm(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """Its own mode is 777, whatever that of the file is; deploy leaves it a link."""
    del sound
    ver.ssh("cd /opt/ai-admin && mv .env /etc/ai-admin.env && ln -s /etc/ai-admin.env .env && pm2 restart ai-admin-api")
    try:
        until(60, "the API", lambda: ver.ssh("curl -sf localhost:3000/health", check=False).returncode == 0)
        first = deploy(ver, "--data", "settle_time=0")
        assert (first.code, deploy(ver, "--data", "settle_time=0").changed) == (0, []), first.output
        found = verify(ver, tmp_path)
        assert found.code == 0, found.output
        assert ver.ssh("readlink /opt/ai-admin/.env").stdout.strip() == "/etc/ai-admin.env"
    finally:
        ver.ssh("mv /etc/ai-admin.env /opt/ai-admin/.env && pm2 restart ai-admin-api")
        until(60, "the API", lambda: ver.ssh("curl -sf localhost:3000/health", check=False).returncode == 0)


@pytest.mark.slow
@pytest.mark.parametrize(("database", "status"), [("postgres", "ready"), ("template1", "failing")])
def test_the_operators_database_is_asked(
    ver: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str, status: str
) -> None:
    password = "pg%23pa$$%20%22quoted%22"
    monkeypatch.setenv("DATABASE_URL", f"postgresql://ai_admin:{password}@127.0.0.1/{database}")
    found = verify(ver, tmp_path)
    assert {row["component"]: row["status"] for row in found.table["rows"]}["Database"] == status, found.output


def secrets_of(host: Host) -> list[str]:
    """The secret values in the host's .env."""
    lines = (host.root / "opt/ai-admin/.env").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    names = ("TOKEN", "SECRET", "PASSWORD", "_KEY")
    return [value.strip("'\"") for key, _, value in pairs if any(name in key for name in names) and len(value) > 8]


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
def test_reports(ver: Host, tmp_path: Path, broken: bool) -> None:
    html, junit = tmp_path / "report.html", tmp_path / "junit.xml"
    try:
        if broken:
            shell(ver, "edit $site 's,\\^~ /socket.io/,/elsewhere/,'; reload", "host")
        found = verify(ver, tmp_path, "--html", str(html), "--junit", str(junit))
    finally:
        if broken:
            shell(ver, "back $site; reload", "host")
    suite = ElementTree.parse(junit).getroot()[0]  # noqa: S314 (our own file)
    assert len(found.checks("failing")) == (3 if broken else 0)
    red = found.checks("failing", "not checked")  # JUnit knows no third
    assert bool(red) == broken
    assert (int(suite.attrib["tests"]), int(suite.attrib["failures"])) == (found.table["checks"], len(red))
    page = html.read_text(encoding="utf-8")
    assert page.count("<section>") == 10
    assert ("landing page: nginx does not proxy it" in page) == broken
    for foreign in ("http://", "https://", "src=", "@import", "url("):
        assert foreign not in page, f"the page needs another file: {foreign}"
    everything = page + junit.read_text() + (tmp_path / "verify.json").read_text() + found.output
    values = secrets_of(ver)
    assert len(values) > 8
    assert [value for value in values if value in everything] == []


@pytest.mark.slow
def test_a_table_that_is_piped_has_no_colour_and_is_not_cut(ver: Host) -> None:
    done = run("-m", "tests.verify", INVENTORY, "--limit", ver.name, COLUMNS="80", NO_COLOR="1")
    assert done.returncode == 0
    assert "\033" not in done.stdout
    assert "…" not in done.stdout
    command = [sys.executable, "-m", "tests.verify", INVENTORY, "--limit", ver.name]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as left:
        assert left.stdout and left.stderr
        left.stdout.close()  # as `| head` does once it has read enough
        assert left.stderr.read() == ""


@pytest.mark.slow
def test_a_narrow_terminal_without_colour(ver: Host) -> None:
    on_a_terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    verify = (sys.executable, "-m", "tests.verify", INVENTORY, "--limit", ver.name)
    done = run("-c", on_a_terminal, *verify, COLUMNS="80", NO_COLOR="1")
    assert done.returncode == 0
    assert "\033" not in done.stdout and "…" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("file", sorted((ROOT / "tests/verify").glob("*.py")), ids=lambda file: file.name)
def test_shares_no_code_with_what_deploys(file: Path) -> None:
    """It must catch deploy's mistakes. What both must know is data: rules.py, settings.py, credentials.py.

    Only hosts.py imports pyinfra, in a process of its own.
    """
    forbidden = {"facts", "operations", "remote", "session", "deploy"}
    if file.name != "hosts.py":
        forbidden |= {"pyinfra", "pyinfra_cli", "gevent"}
    imported = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert {name.split(".")[0] for name in imported} & forbidden == set()


def test_an_unreachable_host(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.py"
    here = {"ssh_hostname": "127.0.0.1", "ssh_port": 9, "verify_address": "127.0.0.1"}
    inventory.write_text(f"group = [('nowhere', {here})]\n")
    done = run("-m", "tests.verify", str(inventory))
    assert done.returncode == 1
    assert "nowhere cannot be reached over ssh" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_bare_pytest_connects_to_nothing() -> None:
    done = run("-m", "pytest", "-q", "tests/verify")
    assert done.returncode != 0
    assert "needs a host" in done.stdout + done.stderr
