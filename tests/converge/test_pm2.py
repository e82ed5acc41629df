"""The API under pm2: it runs what is on disk, it alone is restarted, and a run says when it does not stay up."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import load
from benchmarks.load import ask
from remote.waiting_room import FOLDER
from tests.converge.conftest import (
    APP,
    QUICK,
    App,
    apps,
    converge,
    differing,
    health_check,
    only,
    owned,
    read,
    refuse,
    replace,
    verify,
    write,
)
from tests.rehearsal.host import Host, until
from tests.rehearsal.story import deploy, tokens

API = "ai-admin-api"
RESTART = ["API restart"]
INDEX = f"{APP}/src/index.js"
DUMP = "/root/.pm2/dump.pm2"


@pytest.fixture(scope="module")
def first(host: Host) -> dict[str, App]:
    """What pm2 ran before the first deploy."""
    before = apps(host)
    done = deploy(host, *QUICK)
    assert done.code == 0, done.output
    return before


@pytest.fixture(autouse=True)
def deployed(first: dict[str, App]) -> None:
    """Each test leaves the API deployed and up."""


def others(all_apps: dict[str, App]) -> dict[str, App]:
    return {name: app for name, app in all_apps.items() if name != API}


def environment(host: Host) -> set[str]:
    """The names in the environment that the API was started with."""
    return set(host.ssh(f"tr '\\0' '\\n' < /proc/{apps(host)[API].pid}/environ | cut -d= -f1").stdout.split())


def test_the_api_alone_is_restarted(host: Host, first: dict[str, App]) -> None:
    """Neither are the other five touched, nor is the one started that the operator stopped."""
    now = apps(host)
    assert now[API].pid != first[API].pid
    assert now[API].status == "online"
    assert others(now) == others(first)
    assert now["ai-admin-telegram-bot"].status == "stopped"
    assert len([app for app in others(now).values() if app.status == "online"]) == 5


def test_a_suspended_api_is_restarted(host: Host) -> None:
    """It holds its port, and pm2 calls it online."""
    before = apps(host)
    host.ssh(f"kill -STOP {before[API].pid}")
    done = converge(host)
    assert done.changed == RESTART and "suspended by a signal" in done.output, done.output
    assert apps(host)[API].pid != before[API].pid
    assert others(apps(host)) == others(before)


DEAF = """if (require('fs').existsSync('/var/tmp/deaf')) {
  require('net').Server.prototype.listen = function () { return this; };
  setInterval(() => {}, 1000);
  require('fs').rmSync('/var/tmp/deaf');
}
"""


def test_an_api_that_does_not_listen_is_restarted(host: Host) -> None:
    """It is younger than its files, and pm2 calls it online."""
    index = read(host, INDEX)
    write(host, INDEX, DEAF.encode() + index)
    host.ssh(f"touch /var/tmp/deaf && pm2 restart {API}")
    until(60, "it to be deaf", lambda: not (host.root / "var/tmp/deaf").exists())
    try:
        done = converge(host)
        assert done.changed == RESTART and "it does not listen on its port" in done.output, done.output
    finally:
        write(host, INDEX, index)
    converge(host)


ENDS = "setTimeout(() => process.exit(1), 1200);\n"  # no start takes less than a second: pm2 goes on for ever


def test_what_the_ecosystem_file_starts_may_not_stay_up(host: Host) -> None:
    """A key in pm2's record makes it start the API anew, which runs from another file than it was started with: so it
    comes back as it was, and says so."""
    before, ecosystem = apps(host), read(host, f"{APP}/ecosystem.config.js")
    host.ssh(f"cd {APP} && JWT_SECRET=shadow pm2 restart {API} --update-env")
    write(host, f"{APP}/src/workers/ends.js", ENDS)
    replace(host, f"{APP}/ecosystem.config.js", "'src/index.js'", "'src/workers/ends.js'")
    try:
        output = refuse(host, "--data", "start_timeout=600")
        assert "its port never opened" in output
        assert "with pm2's own record of it, it runs as before" in output
        until(60, "the API", lambda: host.ssh("curl -sf localhost:3000/health", check=False).returncode == 0)
        assert others(apps(host)) == others(before)
    finally:
        write(host, f"{APP}/ecosystem.config.js", ecosystem)
        host.ssh(f"rm {APP}/src/workers/ends.js")
    assert "Secrets in .env" not in converge(host).changed
    assert "JWT_SECRET" not in environment(host)


@pytest.mark.parametrize("file", [".env", "src/config.js"])
def test_file_touched_by_hand_restarts_the_api(host: Host, file: str) -> None:
    before = apps(host)
    host.ssh(f"touch {APP}/{file}")
    assert converge(host).changed == RESTART
    now = apps(host)
    assert now[API].pid != before[API].pid
    assert others(now) == others(before)


@pytest.mark.parametrize("by_hand", [f"pm2 stop {API}", f"pm2 delete {API} && pm2 save --force"])
def test_api_that_does_not_run_is_started(host: Host, by_hand: str) -> None:
    """One that pm2 does not know at all from the ecosystem file: that one only, and saved."""
    before = apps(host)
    host.ssh(by_hand)
    assert converge(host).changed == RESTART
    now = apps(host)
    assert now[API].status == "online"
    assert others(now) == others(before)
    assert health_check(host)["jwt_secret"]
    assert f'"name": "{API}"'.encode() in read(host, DUMP)


@pytest.mark.parametrize("and_then", ["true", "pm2 ls"], ids=["dead", "empty"])
def test_daemon_that_lost_its_apps_gets_all_back(host: Host, and_then: str) -> None:
    """Not the API alone; the one the operator stopped stays stopped; and the same is started at boot."""
    before = {name: app.status for name, app in apps(host).items()}
    host.ssh("pm2 kill")
    # while it is "deactivating", its own `pm2 kill` would end the daemon that comes next
    state = "systemctl show -P ActiveState pm2-root"
    until(120, "the end of pm2's unit", lambda: host.ssh(state).stdout.strip() in ("inactive", "failed"))
    host.ssh(and_then)
    assert converge(host).changed == RESTART
    assert {name: app.status for name, app in apps(host).items()} == before
    assert set(re.findall(r'^    "name": "(.+)"', read(host, DUMP).decode(), re.MULTILINE)) == before.keys()


def test_the_site_is_back_with_the_api(host: Host) -> None:
    """nginx keeps `localhost` for dead for 10 s when requests came during the restart; where lines of the operator's
    still say that, it is to try again at once."""
    leave = ("--data", "change_proxy_pass=false")
    converge(host, *leave)
    deployed = threading.Event()

    def visit() -> None:
        while not deployed.wait(0.05):
            ask(host.address)

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        done = deploy(host, *QUICK, *leave, environment=tokens())
    finally:
        deployed.set()
        visitor.join()
    assert done.changed == ["Secrets in .env", *RESTART]
    assert ask(host.address)[0] == 200
    assert host.ssh("grep -c 'Connection refused' /var/log/nginx/error.log").stdout != "0\n", "nothing was tried"


@pytest.mark.slow
def test_no_request_is_lost_in_a_restart(host: Host) -> None:
    load.plant(host)
    converge(host)
    figures = load.under_load(host, [tokens()], rate=15, timeout=60)
    assert figures.changed == [["Secrets in .env", *RESTART]]
    assert (figures.failed, figures.twice) == (0, 0), figures
    assert len(figures.back) >= 5 and float("inf") not in figures.back, "the socket.io clients are back"
    # and it would be noticed
    host.ssh(f"sed -i s,{FOLDER},/nowhere, /etc/nginx/sites-available/ai-admin.app && systemctl reload nginx")
    figures = load.under_load(host, [tokens()], runbook=only("Secrets in .env", "API restart"), rate=15, timeout=60)
    assert figures.failed > 0
    converge(host)


SLOW = """
app.post('/webhook/slow', (req, res) => {
  require('fs').appendFileSync('/run/slow', 'x');
  setTimeout(() => res.end('done'), 9000);
});
"""


@pytest.mark.slow
def test_an_answer_that_takes_long_comes_after_the_deploy_has_ended(host: Host) -> None:
    """Cut off with the deploy, it would be executed, answered 502, and asked for again."""
    text = read(host, INDEX).decode()
    replace(host, INDEX, "app.use('/', marketplace);", f"{SLOW}app.use('/', marketplace);")
    try:
        converge(host)
        host.ssh("touch /opt/ai-admin/.env; rm -f /run/slow")
        post = "curl -sk -X POST --resolve ai-admin.app:443:127.0.0.1 https://ai-admin.app/webhook/slow"
        with ThreadPoolExecutor() as pool:
            run = pool.submit(deploy, host, *QUICK)
            until(60, "the room", lambda: host.ssh(f"test -L {FOLDER}/3000-restarts", check=False).returncode == 0)
            asked = pool.submit(host.ssh, f"{post}; echo; cat /run/slow")
            assert run.result().changed == RESTART
            assert not asked.done(), "it takes longer than the deploy"
            assert asked.result().stdout.split() == ["done", "x"]
    finally:
        write(host, INDEX, text)
        converge(host)


# --- what does not stay up


@pytest.fixture
def index(host: Host) -> Iterator[str]:
    text = read(host, INDEX).decode()
    yield text
    write(host, INDEX, text)
    assert deploy(host, *QUICK).changed in (RESTART, [])  # nothing, where pm2's own restart came first; then it may
    until(60, "the API", lambda: host.ssh("curl -sf localhost:3000/health", check=False).returncode == 0)  # just start
    assert health_check(host)["jwt_secret"]


@pytest.fixture
def gives_up(host: Host) -> Iterator[None]:
    """pm2 gives an app up after three starts within `min_uptime`: on a busy machine, a second is too short."""
    file = f"{APP}/ecosystem.config.js"
    text, anew = read(host, file), f"cd {APP}; pm2 delete {API}; pm2 start ecosystem.config.js --only {API}; pm2 save"
    replace(host, file, "max_restarts: 10,", "max_restarts: 3, min_uptime: 60000,")
    host.ssh(anew)
    yield
    write(host, file, text.decode())
    host.ssh(anew)


@pytest.mark.slow
@pytest.mark.usefixtures("gives_up")
def test_crash_at_start_is_told_with_the_log(host: Host, index: str) -> None:
    write(host, INDEX, f"throw new Error('нет связи: ' + require('./config').redis.password);\n{index}")
    started = time.monotonic()
    output = refuse(host, "--data", "start_timeout=600")
    assert time.monotonic() - started < 600, "pm2 had given up, and we waited for it all the same"
    assert f"{API} does not stay up (errored): its port never opened" in output
    assert re.search(rf"last lines of {APP}/logs/{API}-error-\d+\.log", output), output
    assert "Error: нет связи: ****" in output
    assert "r#dis-Пароль==" not in output


@pytest.mark.slow
def test_an_app_that_ends_again_and_again_is_given_up(host: Host, index: str) -> None:
    write(host, INDEX, f"{ENDS}// " + index.replace("\n", "\n// "))
    started = time.monotonic()
    output = refuse(host, "--data", "start_timeout=600")
    assert time.monotonic() - started < 300, "it was started for ever, and we waited for it"
    assert "its port never opened; it ended 5 times" in output


@pytest.mark.slow
def test_crash_after_the_first_answer_is_noticed(host: Host, index: str) -> None:
    """It has said on its error log that something is wrong, so a second is not enough."""
    dies = "if (req.url === '/health' && res.statusCode === 200) setTimeout(() => process.exit(1), 2500);"
    once = f"server.on('request', (req, res) => res.on('finish', () => {{ {dies} }}));"
    write(host, INDEX, f"console.error('no connection');\n{index}\n{once}\n")
    output = refuse(host, "--data", "settle_time=5", "--data", "start_timeout=600")
    assert "it answered, then exited and was restarted" in output


def test_port_held_by_another_process(host: Host) -> None:
    """A restart could only fail, so it stops before any change."""
    host.ssh(f"pm2 stop {API}")
    answer = "require('http').createServer((q, r) => r.end('ok')).listen(3000)"
    squatter = host.ssh(f'node -e "{answer}" > /dev/null 2>&1 & echo $!').stdout.strip()
    until(120, "it to listen", lambda: host.ssh("curl -sf localhost:3000", check=False).returncode == 0)
    before = owned(host)
    output = refuse(host, environment=tokens())
    assert differing(before, owned(host)) == set()
    host.ssh(f"kill {squatter}")
    assert f"pm2 says stopped, but port 3000 is held by node (pid {squatter}, user root" in output
    assert deploy(host, *QUICK).changed == RESTART


def test_shadowed_key_is_freed(host: Host) -> None:
    """A variable that a shell left in pm2's own record wins over .env at every restart by name."""
    host.ssh(f"BRANCH=7 JWT_SECRET=x pm2 restart {API} --update-env && pm2 save")
    before = apps(host)
    assert {"BRANCH", "JWT_SECRET"} <= environment(host)
    assert converge(host).changed == RESTART
    assert "JWT_SECRET" not in environment(host)
    assert "BRANCH" in environment(host), "what else the shell left may be all that says it"
    assert b'"JWT_SECRET"' not in read(host, DUMP)
    assert health_check(host)["jwt_secret"]
    assert others(apps(host)) == others(before)


def test_a_key_that_the_ecosystem_file_sets_is_refused(host: Host) -> None:
    """Started anew from that file it would have the value again: a restart at every deploy, and no end to it."""
    file = f"{APP}/ecosystem.config.js"
    whole = read(host, file)
    own = f"c.apps.find((app) => app.name === '{API}').env.JWT_SECRET = 'x';"
    write(host, file, whole + f"\nconst c = module.exports;\n{own}\n".encode())
    host.ssh(f"cd {APP}; pm2 delete {API}; pm2 start ecosystem.config.js --only {API}")
    try:
        remedy = "so the value in .env is never used: remove it from the ecosystem file"
        assert f"{file} sets JWT_SECRET for {API}, {remedy}" in refuse(host)
    finally:
        write(host, file, whole)
    assert converge(host).changed == RESTART
    assert "JWT_SECRET" not in environment(host)


@pytest.mark.parametrize("runs", [True, False])
def test_a_secret_that_pm2_alone_has_is_not_lost(host: Host, runs: bool) -> None:
    """Its record of the API is where it stands; started anew, the API would be without it."""
    env = f"{APP}/.env"
    whole = read(host, env)
    secret = re.search(r"^JWT_SECRET=(\S+)$", whole.decode(), re.MULTILINE)
    assert secret
    replace(host, env, secret[0], "JWT_SECRET=your_secret")
    host.ssh(f"export JWT_SECRET='{secret[1]}'; pm2 restart {API} --update-env && pm2 save")
    if not runs:
        host.ssh(f"pm2 stop {API}")
    before = owned(host)
    try:
        output = refuse(host)
        assert differing(before, owned(host)) == set()
        place = re.search(rf"{API} has JWT_SECRET from pm2 alone; .* as it is in (\S+)", output)
        assert place and secret[1] in host.ssh(f"cat {place[1]}").stdout, output
        write(host, env, whole)
        assert converge(host).changed == RESTART
        assert read(host, env) == whole and health_check(host)["jwt_secret"]
    finally:
        write(host, env, whole)
        host.ssh(f"cd {APP}; pm2 delete {API}; pm2 start ecosystem.config.js --only {API} && pm2 save")
        converge(host)


def test_an_api_in_another_folder_is_refused(host: Host) -> None:
    """It would never read what is written, and the run would say that all is as it should be."""
    host.ssh(
        f"mkdir /srv/copy; cp {APP}/.env /srv/copy; cd /srv/copy; pm2 delete {API};"
        f" pm2 start {APP}/src/index.js --name {API}"
    )
    before = owned(host)
    try:
        output = refuse(host, environment=tokens())
        assert differing(before, owned(host)) == set()
    finally:
        host.ssh(f"pm2 delete {API}; cd {APP} && pm2 start ecosystem.config.js --only {API} && pm2 save")
        host.ssh("rm -r /srv/copy")
    assert f"{API} runs in /srv/copy, and reads .env there: correct app_dir" in output
    converge(host)


def test_a_service_that_is_away_anyway_keeps_no_token_out(host: Host) -> None:
    """/health says 503 before and after: neither does the start time out, nor is the token put back."""
    host.ssh("systemctl stop redis-server")
    status = "curl -s -o /dev/null -w %{http_code} localhost:3000/health"
    until(60, "/health to say so", lambda: host.ssh(status).stdout == "503")
    given = tokens()
    try:
        done = deploy(host, *QUICK, environment=given)
    finally:
        host.ssh("systemctl start redis-server")
    assert done.code == 0, done.output
    assert f"pm2: {API} runs, but /health answers 503, as before the restart" in done.output
    assert given["YCLIENTS_PARTNER_TOKEN"] in read(host, f"{APP}/.env").decode()
    converge(host, environment=given)


def of_ecosystem(host: Host, change: str, start: str) -> Iterator[None]:
    """The API started from an ecosystem file with `change` to it (`own` is the API's part); then as it was."""
    file = f"{APP}/ecosystem.config.js"
    whole = read(host, file)
    own = f"const own = module.exports.apps.find((each) => each.name === '{API}');"
    write(host, file, f"{whole.decode()}\n{own}\n{change}\n".encode())
    host.ssh(f"cd {APP}; pm2 delete {API}; {start} --only {API}; pm2 save")
    yield
    write(host, file, whole)
    host.ssh(f"cd {APP}; pm2 delete {API}; pm2 start ecosystem.config.js --only {API}; pm2 save")
    assert deploy(host, *QUICK).code == 0


@pytest.fixture
def production(host: Host) -> Iterator[None]:
    change = "own.env = {NODE_ENV: 'development'}; own.env_production = {NODE_ENV: 'production', PORT: '3000'};"
    yield from of_ecosystem(host, change, "JWT_SECRET=x pm2 start ecosystem.config.js --env production")


@pytest.mark.usefixtures("production")
def test_started_anew_it_has_the_environment_that_it_had(host: Host) -> None:
    """`--env production`: else production would run as development, and answer /health all the same."""
    assert {"JWT_SECRET", "NODE_ENV"} <= environment(host)
    assert deploy(host, *QUICK).changed == RESTART
    started = host.ssh(f"tr '\\0' '\\n' < /proc/{apps(host)[API].pid}/environ").stdout.splitlines()
    assert "NODE_ENV=production" in started and "JWT_SECRET" not in environment(host)
    assert deploy(host, *QUICK).changed == []


@pytest.fixture
def loading(host: Host) -> Iterator[None]:
    change = f"require('{APP}/node_modules/dotenv').config({{path: '{APP}/.env'}});"
    yield from of_ecosystem(host, change, "pm2 start ecosystem.config.js")


@pytest.mark.usefixtures("loading")
def test_an_ecosystem_file_that_loads_the_env(host: Host) -> None:
    """All of .env is in the app's first environment then, and hides it from the second token on."""
    assert "JWT_SECRET" in environment(host)
    assert deploy(host, *QUICK, environment=tokens()).code == 0
    host.ssh(f"cd {APP}; pm2 delete {API}; pm2 start ecosystem.config.js --only {API}; pm2 save")
    for own in (tokens(), tokens()):
        done = deploy(host, *QUICK, environment=own)
        assert done.code == 0, done.output
        assert deploy(host, *QUICK, environment=own).changed == []
        started = host.ssh(f"tr '\\0' '\\n' < /proc/{apps(host)[API].pid}/environ").stdout
        assert f"YCLIENTS_PARTNER_TOKEN={own['YCLIENTS_PARTNER_TOKEN']}" in started
        assert [row for row in verify(host).rows.items() if row[1] == "failing"] == []


@pytest.fixture
def wrapped(host: Host) -> Iterator[None]:
    """As many start theirs; and with a pid file of its own."""
    package = f"{APP}/package.json"
    whole = read(host, package)
    script = {"scripts": {**json.loads(whole).get("scripts", {}), "start": "node src/index.js"}}
    write(host, package, json.dumps({**json.loads(whole), **script}).encode())
    change = "own.script = 'npm'; own.args = 'start'; own.pid_file = '/run/own.pid';"
    yield from of_ecosystem(host, change, "pm2 start ecosystem.config.js")
    write(host, package, whole)


@pytest.mark.usefixtures("wrapped")
def test_an_app_that_npm_starts(host: Host) -> None:
    until(120, "the API", lambda: host.ssh("curl -sf localhost:3000/health", check=False).returncode == 0)
    own = tokens()
    done = deploy(host, *QUICK, environment=own)
    assert done.code == 0, done.output
    assert deploy(host, *QUICK, environment=own).changed == []
    assert [row for row in verify(host).rows.items() if row[1] == "failing"] == []


def test_an_app_that_pm2_cannot_start_anew_runs_as_it_was_saved(host: Host) -> None:
    """pm2 must forget the app to free the key; where it then refuses the ecosystem file, the site may not stay down."""
    host.ssh(f"JWT_SECRET=x pm2 restart {API} --update-env && pm2 save")
    file, env = f"{APP}/ecosystem.config.js", read(host, f"{APP}/.env")
    whole = read(host, file)
    own = f"c.apps.find((app) => app.name === '{API}').script = 'src/moved.js';"
    write(host, file, whole + f"\nconst c = module.exports;\n{own}\n".encode())
    try:
        output = refuse(host, environment=tokens())
        assert f"pm2 could not start {API}: " in output and "moved.js" in output
        assert read(host, f"{APP}/.env") == env
        assert apps(host)[API].status == "online"
        until(120, "the API", lambda: host.ssh("curl -sf localhost:3000/health", check=False).returncode == 0)
    finally:
        write(host, file, whole)
    assert converge(host).changed == RESTART
    assert "JWT_SECRET" not in environment(host)
