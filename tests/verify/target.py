"""Which hosts are verified, and what the checks read there: each reading is a command or a program, run once."""

from __future__ import annotations

import hmac
import json
import os
import runpy
import secrets
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from testinfra.backend import BACKENDS
from testinfra.host import Host

import contract
import rules
from contract import Contract
from settings import BadInput, Settings
from tests.verify.backend import Backend, Lost
from tests.verify.outside import BROWSER, Outside, Seen, ask_elsewhere, look

if TYPE_CHECKING:
    from credentials import Credentials

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PROGRAMS = HERE / "programs"
RUNNERS = {".py": "python3 -I -S -c %s %s", ".js": "node -e %s -- %s"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dmVyaWZpY2F0aW9uLTAxIQ==",
}
ENDS_WITHIN = (60, 600, 3600)  # seconds
# The prefixes that nginx must pass to the API, each with a path below it.
PATHS = {prefix: f"{prefix}verification/none" for prefix in ("/api/", "/auth/", "/callback/", "/webhook/")}
PATHS |= {"/marketplace/": "/marketplace/onboarding", "/socket.io/": "/socket.io/"}
# What the API is asked, on its own port and through nginx: see programs/http.py. Nothing here changes anything: the
# redirect with a salon would write to the database, a valid token would start a WhatsApp session. What a browser asks
# `of_page` with POST, or to upgrade, has the page's Origin, which a server may refuse.
QUESTIONS: dict[str, dict[str, Any]] = {
    "health": {"path": "/health"},
    "health_check": {"path": rules.HEALTH_CHECK},
    "redirect": {"path": "/auth/yclients/redirect"},
    "onboarding_bare": {"path": "/marketplace/onboarding"},
    "onboarding": {"path": "/marketplace/onboarding?token={token}", "most": 200_000},
    "qr_without_a_token": {"path": "/marketplace/api/qr", "method": "POST", "of_page": True},
    "qr_with_an_invalid_token": {
        "path": "/marketplace/api/qr",
        "method": "POST",
        "headers": {"Authorization": "Bearer verification"},
        "of_page": True,
    },
    "socket": {"path": "/socket.io/?EIO=4&transport=polling"},
    "upgrade": {"path": "/socket.io/?EIO=4&transport=websocket", "headers": UPGRADE, "of_page": True},
    "landing": {"path": "/"},
    "/socket.io/ script": {"path": "/socket.io/socket.io.js"},
    # of no session: 400
    "/socket.io/ POST": {"path": "/socket.io/?EIO=4&transport=polling", "method": "POST", "of_page": True},
    "/marketplace/ POST": {"path": "/marketplace/api/qr", "method": "POST", "of_page": True},
    "/marketplace/ Authorization": {"path": "/marketplace/verification/none", "long": "Authorization"},
}
for _prefix in ("/api/", "/auth/", "/callback/", "/webhook/"):
    _path = f"{_prefix}verification/none"  # no route of the application has it
    QUESTIONS[f"{_prefix} GET"] = {"path": _path}
    QUESTIONS[f"{_prefix} query"] = {"path": _path, "long": "query"}
_asked = ("socket", "upgrade", "/api/ GET", "/auth/ GET", "/callback/ GET", "/webhook/ GET")
FROM_OUTSIDE = {name: QUESTIONS[name] for name in _asked}
QUESTIONS["/webhook/ POST"] = {"path": "/webhook/verification/none", "method": "POST", "json": 20_000}  # bytes


# That of the role `of`: its own in this database, its own, the database's, else the server's.
SEARCH_PATH = """SELECT set_config('search_path', replace(coalesce(
    (SELECT regexp_replace(each, '^search_path=', '') FROM pg_db_role_setting AS its, unnest(setconfig) AS each
     WHERE each LIKE 'search_path=%' AND setrole IN (r.oid, 0)
       AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
     ORDER BY its.setrole DESC, its.setdatabase DESC LIMIT 1),
    current_setting('search_path')), '"$user"', quote_ident(rolname)), true)
FROM pg_roles AS r WHERE rolname = :'of' \\g /dev/null"""


class NotChecked(Exception):
    """This cannot be judged, because something else is broken, which has a check of its own."""


def needs(true: object, why: str) -> None:
    """A precondition of a check. Where it does not hold, another check fails for it, and this one cannot judge."""
    if not true:
        raise NotChecked(why)


class Answer(NamedTuple):
    """Of HTTP. Without an answer, `status` is 0 and `body` the reason. `policy`: its Content-Security-Policy.
    `limited`: the status with which nginx refused it at first, among the other questions. `varies`: the API gives
    another body each time."""

    status: int
    type: str
    location: str
    body: str
    policy: str
    limited: int = 0
    varies: bool = False


class Answers(NamedTuple):
    """To one question: on the API's own port, and through nginx and TLS."""

    direct: Answer
    site: Answer


@dataclass(frozen=True)
class Worker:
    """A process of the API. `started`: seconds since the epoch. `shadowed`: keys of .env that pm2 gave it."""

    pid: int
    started: float
    cluster: bool
    shadowed: list[str]
    state: str
    folder: str


@dataclass(frozen=True)
class Pm2:
    """The pm2 that runs the API, or would. `holders`: the pids that listen on the API's port. `others`: users whose
    pm2 has the API too. `saved`: the API's entries in the list that is started at boot. `ends`: how often it ended and
    nobody had asked for it, in each of ENDS_WITHIN. `why`: of the last one, where pm2 itself restarted it: memory or
    watch. `node` runs the API and `own_node` pm2: they may be two."""

    daemon: int | None
    user: str
    home_of_user: str
    home: str
    node: str
    own_node: str
    holders: list[int]
    workers: list[Worker]
    others: list[str]
    saved: list[dict[str, Any]]
    ends: list[int]
    why: str

    @property
    def since(self) -> float:
        """When the oldest worker started."""
        return min(worker.started for worker in self.workers)


class Passed(NamedTuple):
    """By a location of nginx: to which addresses, and the `proxy_read_timeout` in force."""

    addresses: list[str]
    seconds: float


@dataclass(eq=False)
class Target:
    """A host of the inventory. `command` starts Python there, which reads a program on standard input after
    `preamble`. `address` is empty for this machine itself (@local)."""

    name: str
    settings: Settings
    address: str
    command: list[str] = field(default_factory=list)
    preamble: str = field(default="", repr=False)  # may hold sudo's password

    def __post_init__(self) -> None:
        self._started: dict[str, Future[Any]] = {}
        self._lock = threading.Lock()
        own = _of_operator()
        self._own: Mapping[str, str] = own.keys if own else {}
        self._nonce = secrets.token_hex(16)  # one for all checks: what they ask is then one command, which runs once
        self._database = _database(own, self.settings.database_ca)
        variables = {key: value for key, value in self._database.items() if key != "PSQL"}
        self.backend = Backend(self.name, self.command, self.preamble, variables)
        self.host = Host(self.backend)
        self.backend.target = self

    @classmethod
    def of(cls, host: Host) -> Target:
        """`host` is testinfra's; one that this bundle's inventory does not name gets the settings' defaults."""
        if not hasattr(host.backend, "target"):
            defaults = runpy.run_path(str(ROOT / "group_data/all.py"))
            settings = Settings.load({key: value for key, value in defaults.items() if not key.startswith("_")})
            made = cls(host.backend.get_hostname(), settings, host.backend.get_hostname())
            made.host, host.backend.target = host, made
        target: Target = host.backend.target
        return target

    def start(self) -> None:
        """Begin to connect, to look from outside, and with what takes longest."""
        self.backend.connect()
        for name in ("outside", "pool", "contract"):
            threading.Thread(target=self._begin, args=(name,), daemon=True).start()

    def _begin(self, name: str) -> None:
        try:
            getattr(self, name)
        except (NotChecked, Lost):
            return  # the checks that need it will say so

    def _once(self, name: str, make: Any) -> Any:
        """Whoever comes first makes it; the others wait."""
        with self._lock:
            first = name not in self._started
            future = self._started.setdefault(name, Future())
        if first:
            try:
                future.set_result(make())
            except Exception as error:
                future.set_exception(error)
        if (why := future.exception()) is not None:
            raise copy(why)  # see Backend.run
        return future.result()

    def program(self, name: str, timeout: float = 60, **given: Any) -> Any:
        """What a program of programs/ prints: JSON. Raises NotChecked."""
        file = PROGRAMS / name
        runner = RUNNERS[file.suffix]
        if file.suffix == ".js" or name == "http.py":
            runner = f"{self.path}{runner}"
        text, arguments = file.read_text(encoding="utf-8"), json.dumps(given)
        done = self.host.run(runner, text, arguments, timeout=timeout)
        try:
            return json.loads(done.stdout.rpartition("\x1e")[2])  # what it loads may print too, before this mark
        except ValueError:
            errors = [line for line in done.stderr.splitlines() if "Error" in line or "not found" in line]
            why = (errors or done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise NotChecked(f"{name.partition('.')[0]} could not be read on the host: {why.strip()[:200]}") from None

    @property
    def unreachable(self) -> str:
        """Why there was no answer to any command, in one line."""
        gone = self.address and self.backend.exit_code == 255
        what = "cannot be reached over ssh" if gone else "cannot run the program that reads it"
        return f"{self.name} {what}: {self.backend.lost}"

    @property
    def path(self) -> str:
        """Puts the Node that runs the API first: it may be on the PATH of an interactive shell alone."""
        return first_on_path(self.pm2.node)

    @property
    def processes(self) -> dict[str, Any]:
        settings = self.settings
        found: dict[str, Any] = self.program(
            "processes.py",
            app=settings.api_app,
            app_dir=settings.app_dir,
            port=settings.api_port,
            keys=rules.KEYS,
            seconds=ENDS_WITHIN,
        )
        return found

    @property
    def passed(self) -> dict[str, list[Passed]]:
        """By the path, of the domain's server in nginx's configuration."""
        found = self.program("nginx.py", domain=self.settings.domain, paths=PATHS)
        return {path: [Passed(*each) for each in of] for path, of in found.items()}

    @property
    def pm2(self) -> Pm2:
        found: dict[str, Any] = self.processes["pm2"]
        return Pm2(**{**found, "workers": [Worker(**worker) for worker in found["workers"]]})

    @property
    def site_address(self) -> str:
        """Where nginx serves https: 127.0.0.1, unless it listens on other addresses only."""
        listening = [line.split()[3] for line in self.host.run("ss -Hltn 'sport = :443'").stdout.splitlines()]
        places = [each.rpartition(":")[0].partition("%")[0].strip("[]") for each in listening]
        if not places or {"*", "0.0.0.0", "127.0.0.1"} & {*places}:  # noqa: S104 (nothing is bound here)
            return "127.0.0.1"
        return "::1" if "::" in places else places[0]

    @property
    def answers(self) -> dict[str, Answers]:
        """By the name of the question; and "sessions"."""
        return self.ask(QUESTIONS, QUESTIONS["socket"]["path"])

    def ask(self, questions: Mapping[str, Mapping[str, Any]], sessions: str = "") -> dict[str, Answers]:
        settings = self.settings
        found = self.program(
            "http.py",
            timeout=90,
            questions=questions,
            sessions=sessions,
            port=settings.api_port,
            domain=settings.domain,
            address=self.site_address,
            folder=settings.app_dir,
            secret=rules.JWT_SECRET,
            browser=BROWSER,
        )
        return {name: Answers(*(Answer(*both[way]) for way in Answers._fields)) for name, both in found.items()}

    @property
    def dotenv(self) -> dict[str, Any]:
        """Of each secret in .env the kind, the length, why it is none, and whether the operator has the same one (None:
        has none); and the database's role."""
        nonce = self._nonce
        found: dict[str, Any] = self.program(
            "dotenv.js",
            folder=self.settings.app_dir,
            keys=rules.KEYS,
            nonce=nonce,
            secret=rules.JWT_SECRET,
            placeholder=rules.PLACEHOLDER,
            publicDefaults=rules.PUBLIC_DEFAULTS,
            malformed=rules.MALFORMED,
        )
        for key, read in found["keys"].items():
            own = self._own.get(key)
            digest = None if own is None else hmac.new(nonce.encode(), own.encode(), "sha256").hexdigest()
            read["is_yours"] = None if own is None else digest == read["digest"]
        return found

    @property
    def surroundings(self) -> dict[str, Any]:
        """What the application needs around it, as it finds it."""
        found: dict[str, Any] = self.program(
            "surroundings.js",
            folder=self.settings.app_dir,
            domain=self.settings.domain,
            outbound=list(self.settings.outbound),
            columns=rules.COLUMNS,
        )
        return found

    @property
    def pool(self) -> dict[str, Any]:
        """What the session pool has and does; and which packages load."""
        found: dict[str, Any] = self.program(
            "pool.js",
            folder=self.settings.app_dir,
            sessionPool=rules.SESSION_POOL,
            poolClass=rules.POOL_CLASS,
            packages=list(self.settings.packages),
        )
        return found

    @property
    def contract(self) -> Contract:
        """What the application's source needs. Raises NotChecked."""
        found: Contract = self._once("contract", self._contract)
        return found

    @property
    def sources(self) -> dict[str, str]:
        """The application's files that speak of the marketplace, by their path below its folder."""
        found: dict[str, str] = self.program(
            "sources.py", folder=self.settings.app_dir, mention=rules.MENTION, session_pool=rules.SESSION_POOL
        )
        return found

    def _contract(self) -> Contract:
        sources = self.sources
        if missing := {rules.ROUTES, rules.SESSION_POOL} - set(sources):
            raise NotChecked(f"{', '.join(sorted(missing))} is not in the application's folder")
        return contract.read({file: content.encode() for file, content in sources.items()})

    @property
    def outside(self) -> Outside:
        """What the world sees of the site."""
        found: Outside = self._once("outside", lambda: look(self.settings, self.address, FROM_OUTSIDE))
        return found

    def elsewhere(self, addresses: list[str]) -> dict[str, Seen]:
        """Files that the page loads from other servers, asked for from here."""

        def ask() -> dict[str, Seen]:
            with ThreadPoolExecutor(10) as pool:
                return dict(zip(addresses, pool.map(partial(ask_elsewhere, self.settings), addresses), strict=True))

        found: dict[str, Seen] = self._once("elsewhere", ask)
        return found

    @property
    def psql(self) -> str:
        """The command that reaches the database; a password is in the environment of the host's agent."""
        return self._database["PSQL"]

    @property
    def psql_by_hand(self) -> str:
        """As somebody types it, who has no such environment."""
        return self.psql if "PGHOST" not in self._database else 'psql "$DATABASE_URL"'

    def sql(self, script: str, options: str = "", **variables: str) -> str:
        """What psql prints: rows of columns divided by `|`, or its complaint. `:'name'` is a variable's value. Names
        are found as the application's role finds them. Nothing of it stays; no lock is waited for longer than 5 s."""
        given = {**variables, "of": self._role}
        values = " ".join(f"-v {name}={shlex.quote(value)}" for name, value in given.items())
        # a pooler may hand the session to others afterwards
        whole = f"BEGIN; SET LOCAL lock_timeout = '5s';\n{SEARCH_PATH}\n{script}\nROLLBACK;"
        return str(
            self.host.run(f"cd / && {self.psql} -XAtq {options} {values} -f - 2>&1 <<'SQL'\n{whole}\nSQL").stdout
        )

    @property
    def _role(self) -> str:
        """The application's, in its database; empty where it cannot be told."""
        try:
            return str(self.dotenv["role"])
        except NotChecked:
            return ""


def first_on_path(program: str) -> str:
    """An assignment that comes before a command; empty where there is no such program."""
    return f"PATH={shlex.quote(str(Path(program).parent))}:$PATH " if program else ""


def _database(own: Credentials | None, ca: str) -> dict[str, str]:
    """How the database is asked: the operator's DATABASE_URL where one is set, else the host's own PostgreSQL. `ca`: a
    file on the host of who signs for it."""
    keywords = own.database(ca) if own else None
    if keywords is None:
        return {"PSQL": "runuser -u postgres -- psql -d postgres"}
    from credentials import LIBPQ

    return {"PSQL": "psql", "PGCONNECT_TIMEOUT": "10", **{LIBPQ[key]: value for key, value in keywords.items()}}


def _of_operator() -> Credentials | None:
    """Read only where something names one: it takes time, and a passphrase may be asked for. Raises BadInput."""
    dotenv = Path(".env")
    sources = [*os.environ, dotenv.read_text(encoding="utf-8", errors="replace") if dotenv.exists() else ""]
    if not any(
        key in source for source in sources for key in (*rules.KEYS, "DATABASE_URL", "YCLIENTS_SECRETS_COMMAND")
    ):
        return None
    from credentials import of_operator

    return of_operator()


def targets(inventory: str, limits: list[str], data: Sequence[str] = ()) -> list[Target]:
    """The hosts of an inventory, as pyinfra reads it with these `--data`: see hosts.py. Raises BadInput."""
    # At once: Ctrl-C while it imports pyinfra would be a traceback
    main = "import signal; signal.signal(2, signal.SIG_DFL); from tests.verify.hosts import main; main()"
    command = [sys.executable, "-c", main, json.dumps([inventory, limits, data])]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        raise BadInput(f"{inventory} cannot be read; see above")
    found = json.loads(done.stdout)
    if isinstance(found, str):
        raise BadInput(found)
    if not found:
        raise BadInput(f"{inventory} has no host {'that matches ' + ', '.join(limits) if limits else 'at all'}")
    return [Target(**{**each, "settings": Settings(**each["settings"])}) for each in found]


class FromInventory(Backend):
    """`pytest --hosts=pyinfra://NAME --inventory=FILE tests/verify`: the connection that pyinfra's inventory says."""

    inventory = "inventory.py"

    def __new__(cls, name: str, **_: Any) -> Backend:
        [target] = targets(cls.inventory, [name])
        return target.backend

    @classmethod
    def register(cls, inventory: str) -> None:
        cls.inventory = inventory
        BACKENDS["pyinfra"] = f"{cls.__module__}.{cls.__name__}"
