"""The faults, as data. Each is one story: what strikes the host or the deploy, and how the outer world fixes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.rehearsal.story import Deployed, tokens
from tests.resilience.world import Ran, World

STEPS = {"first": 14, "token": 4}  # remote steps of a first deploy, and of one when a token arrives
KINDS = ("before", "after", "cut", "sshd")

PSQL = "cd /; runuser -u postgres -- psql"
STOP, START, RESTART = "systemctl stop", "systemctl start", "systemctl restart"


def nothing(_: World) -> None:
    """No help from outside is needed."""


@dataclass(frozen=True)
class Fault:
    """`strike` runs a deploy with the fault in it, `fix` is what the outer world does later: the disk is emptied, the
    database comes back. `output` must stand in what the deploy printed. `fails` is whether that deploy fails."""

    name: str
    scenario: str
    strike: Callable[[World, dict[str, str]], None]
    fix: Callable[[World], None] = nothing
    answers: bool = True  # does the site answer while the fault lasts? Not with its database down, say


def killed(scenario: str, kind: str, step: int) -> Fault:
    def strike(world: World, environment: dict[str, str]) -> None:
        done = world.faulty(kind, step, environment)
        assert "Traceback" not in done.output, done.output[-600:]

    return Fault(f"{scenario} deploy, step {step}: {kind}", scenario, strike)


def printed(done: Deployed | Ran, *texts: str, code: int = 1) -> None:
    """The deploy ended with this code, and printed each of the texts."""
    assert done.code == code, f"exit code {done.code}, not {code}: {done.output[-600:]}"
    missing = [text for text in texts if text not in done.output]
    assert not missing, f"did not print {missing}: {done.output[-600:]}"


@dataclass(frozen=True)
class OnHost:
    """A fault made by shell on the host before the deploy, and undone by shell after it."""

    plant: str
    fix: str
    output: tuple[str, ...] = ()
    code: int = 1
    answers: bool = True
    during: str = field(default="")  # run while the deploy runs, again and again until it succeeds once

    def fault(self, name: str, scenario: str) -> Fault:
        def strike(world: World, environment: dict[str, str]) -> None:
            if self.plant:
                world.host.ssh("sh -eu", input=self.plant)
            stop = threading.Event()
            helper = threading.Thread(target=_again_and_again, args=(world, self.during, stop))
            if self.during:
                helper.start()
            done = world.deploy(environment)
            stop.set()
            if self.during:
                helper.join()
            printed(done, *self.output, code=self.code)

        def fix(world: World) -> None:
            if self.fix:
                world.host.ssh("sh -eu", input=self.fix)

        return Fault(f"{scenario} deploy, {name}", scenario, strike, fix, self.answers)


def _again_and_again(world: World, script: str, stop: threading.Event) -> None:
    while not stop.is_set() and world.host.ssh("sh -eu", input=script, check=False).returncode != 0:
        time.sleep(0.05)


def full(folder: str) -> OnHost:
    """A file system of its own below `folder`, with what was there, and full."""
    plant = f"""
        cp -a {folder} /root/kept
        size=$(( $(du -sm /root/kept | cut -f1) + 2 ))
        mount -t tmpfs -o size=${{size}}m,mode=755 tmpfs {folder}
        cp -a /root/kept/. {folder}/
        rm -rf /root/kept
        dd if=/dev/zero of={folder}/filler bs=4k 2>/dev/null || true
    """
    return OnHost(plant, f"mount -o remount,size=500m {folder}; rm {folder}/filler", ("ENOSPC",))


def read_only(folder: str) -> OnHost:
    plant = f"mkdir -p {folder} && mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    return OnHost(plant, f"umount {folder}", ("EROFS",))


BROKEN_NGINX = OnHost(
    "echo 'oops;' > /etc/nginx/conf.d/broken.conf",
    "rm /etc/nginx/conf.d/broken.conf",
    ("nginx -t", "broken.conf"),
    answers=False,  # it serves; but `nginx -t` passes only when somebody has fixed it
)


def on_host() -> list[Fault]:
    """Faults of the host, for the first deploy where it does most, else for a token's arrival."""
    backups = "mkdir -p -m 700 /var/backups/ai-admin-deploy; "
    var = full("/var/backups/ai-admin-deploy")
    lock = f"{PSQL} -qc 'begin; lock table companies; select pg_sleep(300)' </dev/null >/dev/null 2>&1 & sleep 0.5"
    unlock = f"""{PSQL} -qXAtc "select pg_terminate_backend(pid) from pg_stat_activity
        where query ~ 'pg_sleep' and pid <> pg_backend_pid()" >/dev/null"""
    waits = f"{PSQL} -XAtc 'select 1 from pg_locks where not granted' | grep -q 1"
    killer = "(until pkill -9 -f '^npm install'; do sleep 0.02; done) >/dev/null 2>&1 & echo $! > /root/killer"
    hba = "/etc/postgresql/17/main/pg_hba.conf"
    route = "ip route add default via $(sed -n s/Gateway=//p /etc/systemd/network/10-rehearsal.network)"
    planted: list[tuple[str, str, OnHost]] = [
        ("disk full on /opt", "first", full("/opt/ai-admin")),
        ("disk full on /opt", "token", full("/opt/ai-admin")),
        ("disk full on /etc", "first", full("/etc/nginx")),
        ("disk full on /var", "token", OnHost(backups + var.plant, var.fix, var.output)),
        ("read-only /opt", "first", read_only("/opt/ai-admin")),
        ("read-only /opt", "token", read_only("/opt/ai-admin")),
        ("read-only /etc", "first", read_only("/etc/nginx")),
        ("nginx stopped", "first", OnHost("systemctl stop nginx", "", ("nginx: start",), code=0)),
        ("nginx stopped", "token", OnHost("systemctl stop nginx", "", ("nginx: start",), code=0)),
        ("nginx configuration broken by somebody", "first", BROKEN_NGINX),
        ("nginx configuration broken by somebody", "token", BROKEN_NGINX),
        (
            "PostgreSQL stopped",
            "first",
            OnHost(f"{STOP} postgresql", f"{START} postgresql", ("DATABASE_URL",), answers=False),
        ),
        (
            "PostgreSQL restarted in its middle",
            "first",
            OnHost(lock, "", ("and the database is as it was",), during=f"{waits} && {RESTART} postgresql"),
        ),
        (
            "PostgreSQL refusing connections",
            "first",
            OnHost(
                f"cp -p {hba} /root/; sed -i '/^local/d' {hba}; systemctl reload postgresql",
                f"cp -p /root/pg_hba.conf {hba}; systemctl reload postgresql",
                ("migration on",),
                answers=False,
            ),
        ),
        ("companies locked for 5 minutes", "first", OnHost(lock, unlock, ("in the way: pid",))),
        ("npm killed", "first", OnHost(killer, "kill $(cat /root/killer) || true", ("npm could not install",))),
        ("registry unreachable", "first", OnHost("ip route del default", route, ("npm could not install",))),
        ("a package half removed", "token", OnHost("rm -r /opt/ai-admin/node_modules/jws", "", (), code=0)),
        ("pm2 daemon dead", "token", OnHost("kill -9 $(cat /root/.pm2/pm2.pid)", "", (), code=0)),
        ("pm2 stopped", "token", OnHost(f"{STOP} pm2-root", "", code=0)),
        ("the app in a crash loop before we come", "first", OnHost("pm2 restart ai-admin-api >/dev/null", "", code=0)),
    ]
    return [each.fault(name, scenario) for name, scenario, each in planted]


def crashes_on_token(world: World, _: dict[str, str]) -> None:
    """The application dies when it reads the new token: all goes back, and it runs as before."""
    world.host.ssh(
        "sh -eu",
        input="""
        cd /opt/ai-admin; cp -p src/index.js /root/
        sed -i "1i if (require('fs').readFileSync('.env', 'utf8').includes('crash')) process.exit(1);" src/index.js
        """,
    )
    bad = {"YCLIENTS_PARTNER_TOKEN": "crash-now", "YCLIENTS_APP_ID": "1"}
    done = world.deploy(bad)
    printed(done, "does not stay up", "put back as they were", "runs as before")
    assert b"crash" not in world.env_now(), ".env was not put back"


def index_right(world: World) -> None:
    world.host.ssh("cp -p /root/index.js /opt/ai-admin/src/index.js")


CLOCK_BACK = """
cat > /usr/local/sbin/python3 <<'EOF'
#!/usr/bin/python3 -IS
import sys, time
real = time.time
time.time = lambda: real() - 3600
exec(sys.argv[sys.argv.index("-c") + 1], {"__name__": "__main__"})
EOF
chmod +x /usr/local/sbin/python3
"""


def clock_back(world: World, environment: dict[str, str]) -> None:
    """Our programs see a clock that is an hour behind that of the files. (The machine's own clock is everybody's.)"""
    world.host.ssh("sh -eu", input=CLOCK_BACK)
    printed(world.deploy(environment), code=0)
    again = world.deploy(environment)
    assert again.changed == [], f"with the clock set back the next run changes {again.changed}"


def clock_right(world: World) -> None:
    world.host.ssh("rm /usr/local/sbin/python3")


def two_at_once(world: World, environment: dict[str, str]) -> None:
    """The second comes while a step of the first stands still."""
    second: list[Deployed] = []
    first = world.faulty("pause1", 2, environment, meanwhile=lambda _: second.append(world.deploy(environment)))
    assert second, "no step of the first stood still"
    printed(second[0], code=75)
    printed(first, code=0)


def power_cut(step: int) -> Fault:
    def strike(world: World, environment: dict[str, str]) -> None:
        world.faulty("after", step, environment)
        world.host.power_cycle()

    return Fault(f"first deploy, power cut after step {step}", "first", strike, answers=False)


def every() -> list[Fault]:
    struck = [
        killed(scenario, kind, step)
        for scenario, steps in STEPS.items()
        for step in range(1, steps + 1)
        for kind in KINDS
    ]
    others = [
        Fault("token deploy, clock set back an hour", "token", clock_back, clock_right),
        Fault("first deploy, clock set back an hour", "first", clock_back, clock_right),
        Fault("token deploy, the app crashes on the new token", "token", crashes_on_token, index_right),
        Fault("token deploy, two at once", "token", two_at_once),
        Fault("first deploy, two at once", "first", two_at_once),
        *(power_cut(step) for step in (2, 6, 8, 11, 14)),
    ]
    return [*struck, *on_host(), *others]


def fresh_tokens(scenario: str) -> dict[str, str]:
    return tokens() if scenario == "token" else {}
