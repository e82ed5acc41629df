"""Histories: two or three faults in a row, and what must be true after each. One is a line of text, which replays it:

    token @3.0 API killed; rollback @2.7 step killed; disk full on /etc/nginx; deploy

`RUN @STEP.POINT FAULT`: the fault strikes in the run, before the POINTth change of its STEPth remote step (0: before
the step is sent). Where the run has no such point, it strikes after the run.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dotenv import dotenv_values
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.rehearsal.host import Host
from tests.rehearsal.story import INVENTORY, ROOT, Deployed
from tests.resilience.faults import BROKEN_NGINX, CLOCK_BACK, START, STEPS, STOP, OnHost, full
from tests.resilience.world import Moment, World, sshd_sessions

KEYS = ("YCLIENTS_PARTNER_TOKEN", "YCLIENTS_APP_ID")
CANARY = "canary-"  # how the secrets of a history begin, but for JWT_SECRET and the application id
BACKUPS = "/var/backups/ai-admin-deploy"
ENV, SITE = "/opt/ai-admin/.env", "/etc/nginx/sites-available/ai-admin.app"
SOURCE = "/opt/ai-admin/src/api/routes/yclients-marketplace.js"
INDEX = "/opt/ai-admin/src/index.js"
COMMENT = {ENV: "#", SITE: "#", SOURCE: "//"}
HOME = re.compile(rf"({ENV}|{BACKUPS}/[^/]+{ENV}(\.found(\.\d+)?)?)")  # where secrets belong
BLOCK = re.compile(rb"[^\n]*>>> ai-admin-deploy.*?<<< ai-admin-deploy", re.DOTALL)
LOCKED = 75
FAULTS = 3  # at most, in one history
POINTS = st.one_of(st.just(0), st.integers(1, 25))

RUNS = ("deploy", "token", "rollback")  # token: new ones arrive, and are deployed
OURS = (*RUNS, "verify")


def keeping(disk: OnHost, folder: str) -> OnHost:
    """As `disk`, but in the end the folder is itself again, with what was written meanwhile (not in node_modules)."""
    under = f"""
        mkdir -p /run/under; mount --bind / /run/under
        cd {folder}; find . -name node_modules -prune -o ! -type d -print0 |
            xargs -0r cp -a --parents --remove-destination -t /run/under{folder}
        cd /; umount /run/under; umount -l {folder}
    """
    return replace(disk, plant=f"mkdir -p -m 700 {folder}; {disk.plant}", fix=disk.fix + under)


# What lasts until somebody mends it; `answers` says whether all invariants can be asked meanwhile.
LASTING = {
    "nginx broken": BROKEN_NGINX,
    "database away": OnHost(f"{STOP} postgresql", f"{START} postgresql", answers=False),
    **{f"disk full on {each}": keeping(full(each), each) for each in ("/opt/ai-admin", "/etc/nginx", BACKUPS)},
    "disk full on /var/lib": keeping(full("/var/lib/ai-admin-deploy"), "/var/lib/ai-admin-deploy"),
}
# What happens and is over. JWT_SECRET is what somebody damages in .env, for the tokens tell one deploy from another.
DAMAGE = {
    ".env damaged": (ENV, "s/^JWT_SECRET=.*/JWT_SECRET=/"),
    "nginx block damaged": (SITE, "/ai-admin-deploy/,/ai-admin-deploy/{/Upgrade/d}"),
    "source block damaged": (SOURCE, "/ai-admin-deploy/,/ai-admin-deploy/{/jwt_secret/d}"),
}
EDITS = {".env edited": ENV, "nginx edited": SITE, "nginx edited in our block": SITE, "source edited": SOURCE}
KILLS = {
    # bin/verify calls two ends within a minute a crash loop, and rightly; a minute is long before the last one here
    "API killed": ": > /root/.pm2/pm2.log; kill -9 $(cat /root/.pm2/pids/ai-admin-api-*.pid)",
    "pm2 killed": "kill -9 $(cat /root/.pm2/pm2.pid)",
}
OTHERS = ("second operator", "reboot", "tokens refused", "clock set back")
EVENTS = (*LASTING, *DAMAGE, *EDITS, *KILLS, *OTHERS)
OF_A_RUN = ("client dies", "step killed", "session killed", "connection drops")
STRIKES = (*OF_A_RUN, *(name for name in EVENTS if not name.startswith("disk") and name != "clock set back"))


@dataclass(frozen=True)
class Item:
    """One sentence of a history: a run of OURS, struck or not, or one of EVENTS."""

    what: str
    step: int = 0
    point: int = 0
    strike: str = ""

    def __str__(self) -> str:
        return f"{self.what} @{self.step}.{self.point} {self.strike}" if self.strike else self.what

    @classmethod
    def parse(cls, text: str) -> Item:
        match = re.fullmatch(r"(.+?)(?: @(\d+)\.(\d+) (.+))?", text.strip())
        assert match, text
        what, step, point, strike = match.groups()
        assert what in (*OURS, *EVENTS) and strike in (None, *STRIKES), f"{text}: unknown"
        return cls(what, int(step or 0), int(point or 0), strike or "")


@dataclass(frozen=True)
class History:
    """`scenario` "first" begins on a host that has nothing of ours, "token" on a converged one."""

    scenario: str
    items: tuple[Item, ...]

    @property
    def name(self) -> str:
        return "history: " + "; ".join([*(["pristine"] if self.scenario == "first" else []), *map(str, self.items)])

    @classmethod
    def parse(cls, text: str) -> History:
        sentences = [each.strip() for each in text.removeprefix("history: ").split(";")]
        is_first = sentences[0] == "pristine"
        return cls("first" if is_first else "token", tuple(map(Item.parse, sentences[is_first:])))

    def shorter(self) -> Iterator[History]:
        """Each with one sentence less."""
        for at in range(len(self.items)):
            yield replace(self, items=(*self.items[:at], *self.items[at + 1 :]))


class Tale(World):
    """A history as it goes on one host. `wrong` says what does not hold."""

    def __init__(self, host: Host, root: Path = ROOT) -> None:
        super().__init__(host, root)
        self.environment = {key: value for key in KEYS if (value := self.keys(ENV)[key])}
        self.pairs = [self.pair(ENV), *map(self.pair, self.copies(ENV))]  # of tokens, in any .env there ever was
        self.theirs = {file: set(BLOCK.sub(b"", self.read(file)).splitlines()) for file in COMMENT}
        self.theirs[ENV] = {line for line in self.theirs[ENV] if not line.startswith((b"YCLIENTS_", b"JWT_SECRET"))}
        self.secrets = {CANARY}
        self.lasting: dict[str, Callable[[], object]] = {}  # what nobody has mended yet, with what mends it
        self.refused = ""  # what the application does not survive in its .env
        self.settled = False  # nothing has happened since a deploy that succeeded
        self.old: tuple[str | None, ...] | None = None  # the tokens before the last run, which gave others
        self.wrong: list[str] = []
        self.number = 0

    # --- what is there

    def path(self, file: str) -> Path:
        """As the host's own processes see it, whatever is mounted over it."""
        return Path(f"/proc/{self.host.init}/root{file}")

    def read(self, file: str) -> bytes:
        with suppress(FileNotFoundError):
            return self.path(file).read_bytes()
        return b""

    def copies(self, file: str) -> list[str]:
        """Its backups, and what rollbacks found in its place."""
        found = [each for each in self.path(BACKUPS).glob(f"*{file}*") if each.is_file()]
        return [f"/{each.relative_to(self.path(''))}" for each in found]

    def keys(self, file: str) -> dict[str, str | None]:
        found = dotenv_values(stream=io.StringIO(self.read(file).decode(errors="replace")), interpolate=False)
        return {key: found.get(key) for key in (*KEYS, "JWT_SECRET")}

    def pair(self, file: str) -> tuple[str | None, ...]:
        found = self.keys(file)
        return tuple(found[key] for key in KEYS)

    def of_dotenv(self) -> list[str]:
        """No line of others is lost, in whichever file; the tokens are the old or the new ones."""
        found = []
        for file, lines in self.theirs.items():
            there = {line for each in (file, *self.copies(file)) for line in self.read(each).splitlines()}
            found += [f"{file} lost a line of others: {line.decode()[:20]}…" for line in sorted(lines - there)]
        if self.pair(ENV) not in self.pairs:
            found.append(".env has tokens that belong to no deploy")
        if self.refused and self.refused in str(self.pair(ENV)):
            found.append(".env has tokens that the application does not survive")
        return found

    def unfinished(self, environment: dict[str, str]) -> list[str]:
        found = super().unfinished(environment if all(self.pair(ENV)) else {})
        is_old = environment and self.pair(ENV) != tuple(environment.values())
        return [*found, *(["the tokens are not those that were deployed"] if is_old else [])]

    def deploy(self, environment: dict[str, str], *arguments: str) -> Deployed:
        done = super().deploy(environment, *arguments)
        self.look_at("deploy", done.output)
        return done

    def look_at(self, what: str, output: str) -> None:
        """What was printed."""
        self.secrets.add(self.keys(ENV)["JWT_SECRET"] or CANARY)
        if any(secret in output for secret in self.secrets):
            self.wrong.append(f"{what}: printed a secret")
        if "Traceback (most recent" in output:
            self.wrong.append(f"{what}: printed a traceback: {output[-900:]}")

    # --- what happens

    def tell(self, item: Item) -> None:
        """Do it, then ask for what must hold."""
        if item.what == "verify":
            self.verify()
        elif item.what in RUNS:
            self.run(item)
        else:
            self.event(item.what)
        unasked = [{"database away": "database", "nginx broken": "nginx"}.get(name, "") for name in self.lasting]
        self.wrong += [f"after {item}: {problem}" for problem in self.problems("left", *unasked)]

    def run(self, item: Item) -> None:
        before = self.pair(ENV)
        if item.what == "token":
            number = str(secrets.randbelow(10**9) + 10**9)
            self.secrets.add(number)
            self.environment = {KEYS[0]: f"{CANARY}{secrets.token_hex(12)}{self.refused}", KEYS[1]: number}
            self.pairs.append(tuple(self.environment.values()))
        is_sound, was_settled, self.settled = not (self.lasting or item.strike), self.settled, False
        runbook = "rollback.py" if item.what == "rollback" else "deploy.py"
        to_come = [item.strike] if item.strike else []
        ran = self.faulty(
            f"{'edit' if item.strike in EDITS and item.point else 'pause'}{item.point}",
            item.step,
            self.environment,
            "-vvv",
            runbook=runbook,
            meanwhile=lambda moment: self.event(to_come.pop(), moment),
        )
        self.look_at(str(item), ran.output)
        if to_come and to_come[0] not in OF_A_RUN:
            self.event(to_come[0])
        is_nothing = item.what == "rollback" and "to undo; put back already: " in ran.output
        if is_sound and ran.code != 0 and not is_nothing:
            self.wrong.append(f"{item}: failed in a sound world: {ran.output[-900:]}")
        if ran.code not in (0, 1) and (ran.code, item.strike) != (-signal.SIGKILL, "client dies"):
            self.wrong.append(f"{item}: exit code {ran.code}: {ran.output[-600:]}")
        if ran.code == 0 and item.what != "rollback" and not item.strike:
            self.wrong += [f"{item}: exit code 0, but {problem}" for problem in self.unfinished(self.environment)]
            self.settled = True
        if is_nothing and is_sound:
            self.settled = was_settled
        is_whole = ran.code == 0 and not item.strike
        if is_whole and item.what == "rollback" and self.old and self.pair(ENV) != self.old:
            self.wrong.append(f"{item}: another deploy than the last was undone")
        self.old = before if is_whole and item.what == "token" else None

    def verify(self) -> None:
        """Its exit code must agree with what is true."""
        command = [sys.executable, "-m", "tests.verify", INVENTORY, "--limit", self.host.name]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True)
        self.look_at("verify", done.stdout + done.stderr)
        # one answer that did not come in time proves nothing: verification may have had it
        answers = self.ask() if done.returncode == 1 else self.ask_patiently()
        keys = self.keys(ENV)
        broken = [name for name in self.lasting if name in ("database away", "nginx broken")]
        if (answers["socket"], answers["page"]) != ("0{", "1") or not keys["JWT_SECRET"]:
            broken.append(str(answers))
        ready = 0 if all(keys.values()) else 2
        fitting = [1] if broken else [ready] if self.settled else [ready, 1]
        if done.returncode not in fitting:
            self.wrong.append(f"verify: exit code {done.returncode}, not {fitting} ({broken}): {done.stdout[-1500:]}")

    def event(self, name: str, moment: Moment | None = None) -> None:
        self.settled = False
        if name in OF_A_RUN and moment:
            self.strike(name, moment)
        elif name in LASTING and name not in self.lasting:
            self.plant(name)
        elif name in DAMAGE:
            file, script = DAMAGE[name]
            self.host.ssh("sh -eu", input=f"sed -i '{script}' {file}", check=False)  # the disk may be full
        elif name in EDITS:
            self.edit(EDITS[name], inside="block" in name)
        elif name in KILLS:
            self.host.ssh("sh", input=KILLS[name], check=False)  # it may be dead already
        elif name == "second operator":
            other = self.deploy(self.environment)
            if moment and moment.step > 1 and other.code != LOCKED:  # the first step takes the lock
                self.wrong.append(f"a second operator's run ended with {other.code} while ours went on")
        elif name == "reboot":
            self.host.power_cycle()
            self.lasting.pop("database away", None)
        elif name == "tokens refused" and not self.refused:
            self.refuse_tokens()
        elif name == "clock set back" and name not in self.lasting:
            self.host.ssh("sh -eu", input=CLOCK_BACK)
            self.lasting[name] = partial(self.host.ssh, "rm /usr/local/sbin/python3")

    def plant(self, name: str) -> None:
        fix = partial(self.host.ssh, "sh -eu", input=LASTING[name].fix)
        if self.host.ssh("sh -eu", input=LASTING[name].plant, check=False).returncode == 0:
            self.lasting[name] = fix
        else:  # the disk may be full
            fix(check=False)

    def refuse_tokens(self) -> None:
        """From now on new tokens are such as the application does not survive."""
        self.refused = f"refused{secrets.token_hex(4)}"
        check = f"if (require('fs').readFileSync('.env', 'utf8').includes('{self.refused}')) process.exit(1);"
        script = f'cp -p {INDEX} /root/index.js; sed -i "1i {check}" {INDEX}'
        if self.host.ssh("sh -eu", input=script, check=False).returncode == 0:
            self.lasting["tokens refused"] = partial(self.host.ssh, f"cp -p /root/index.js {INDEX}")
        else:  # the disk may be full
            self.refused = ""

    def strike(self, name: str, moment: Moment) -> None:
        struck: dict[str, Callable[[], set[int]]] = {
            "client dies": lambda: {moment.client},
            "step killed": lambda: {moment.stopped},
            "session killed": self.session,
            "connection drops": lambda: sshd_sessions(self.host) - moment.sessions,
        }
        for pid in struck[name]():
            with suppress(ProcessLookupError):  # one of several connections may have ended by itself
                os.kill(pid, signal.SIGKILL)

    def edit(self, file: str, inside: bool) -> None:
        """Somebody adds a line of their own."""
        self.number += 1
        value = secrets.token_hex(8)
        line = f"THEIRS_{value}={CANARY}{value}" if file == ENV else f"{COMMENT[file]} theirs {value}"
        whole_lines = f'[ -z "$(tail -c 1 {file})" ] || echo >> {file}'
        appended = f"{whole_lines}; echo '{line}' >> {file}"
        script = f"sed -i '/>>> ai-admin-deploy/a {line}' {file}" if inside else appended
        done = self.host.ssh("sh -eu", input=script, check=False)
        if done.returncode == 0 and line.encode() in self.read(file):  # the disk may be full, or our block away
            self.theirs[file].add(line.encode())

    def mend(self) -> None:
        for name in sorted(self.lasting, key=lambda name: "disk" not in name):  # else it brings back what was mended
            self.lasting[name]()
        self.lasting = {}
        self.refused = ""

    def end(self) -> list[str]:
        """The world is mended: a deploy converges, the next changes nothing, all is ready, and no secret lies about."""
        self.mend()
        found = self.heal(self.environment)
        self.settled = not found
        self.verify()
        patterns = [word for secret in self.secrets for word in ("-e", secret)]
        search = ["grep", "-rlF", "--exclude-dir=node_modules", *patterns, "."]
        listed = subprocess.run(search, cwd=self.host.folder / "upper", capture_output=True, text=True).stdout
        files = {file.removeprefix(".") for file in listed.splitlines()}
        return [*found, *(f"a secret is in {file}" for file in sorted(files) if not HOME.fullmatch(file))]


def perform(history: History, tale: Tale) -> tuple[list[str], list[str]]:
    """What was wrong while it lasted (it ends there), and after the world was mended."""
    for item in history.items:
        if not tale.wrong:
            tale.tell(item)
    survived = list(tale.wrong)
    healed = tale.end()
    return survived, [*healed, *tale.wrong[len(survived) :]]


class Teller(RuleBasedStateMachine):
    """Draws histories. What its rules do on a host is Tale's: so one that is known already need not be told again."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Item] = []
        self.first = False

    @property
    def names(self) -> list[str]:
        return [name for item in self.items for name in (item.what, item.strike) if name in (*EVENTS, *OF_A_RUN)]

    def fits(self, name: str) -> bool:
        """A lasting fault once; no reboot of a machine that could not come up, or would forget what fills its disk."""
        known = self.names
        if self.first and name in (*KILLS, "reboot"):  # without its package the API does not come up
            return False
        dead = ("nginx broken", "tokens refused", *(each for each in LASTING if "disk" in each))
        lasting = {*LASTING, "tokens refused", "clock set back"}
        if name == "reboot":
            return not set(known) & set(dead)
        return name not in lasting or (name not in known and not (name in dead and "reboot" in known[-1:]))

    @initialize(start=st.integers(0, 11))
    def begins(self, start: int) -> None:
        self.first = start == 11  # it takes half a minute, so it is rare

    @rule(what=st.sampled_from(OURS))
    def ours(self, what: str) -> None:
        self.items.append(Item(what))

    @precondition(lambda self: len(self.names) < FAULTS)
    @rule(what=st.sampled_from(RUNS), step=st.integers(0, 13), point=POINTS, strike=st.sampled_from(STRIKES))
    def struck(self, what: str, step: int, point: int, strike: str) -> None:
        steps = 2 if what == "rollback" else STEPS["first" if self.first else "token"]
        if self.fits(strike) and (strike, point) != ("step killed", 0):
            self.items.append(Item(what, step % steps + 1, point, strike))

    @precondition(lambda self: len(self.names) < FAULTS)
    @rule(name=st.sampled_from([name for name in EVENTS if name != "second operator"]))
    def world(self, name: str) -> None:
        if self.fits(name):
            self.items.append(Item(name))


def histories(count: int) -> list[History]:
    """Always the same ones, as long as the rules and hypothesis are; no two of the same faults."""
    found: dict[tuple[str, ...], History] = {}

    @seed(0)
    class Collect(Teller):
        def teardown(self) -> None:
            runs = [item for item in self.items if item.what in RUNS]
            if len(self.names) > 1 and runs:
                history = History("first" if self.first else "token", tuple(self.items))
                found.setdefault(tuple(sorted(self.names)), history)

    options = settings(
        max_examples=4 * count,
        stateful_step_count=5,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Collect, settings=options)
    return list(found.values())[:count]
