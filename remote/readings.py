"""The shapes of what `read` returns in each noun's module, and of what they are asked. Plain data."""

from typing import TypedDict


class Rules(TypedDict):
    """Which keys are ours, and what counts as no value: a pattern; for JWT_SECRET what is public, or shorter."""

    keys: list[str]
    placeholder: str
    public_defaults: list[str]
    min_jwt_secret: int


class Key(TypedDict):
    """`kind`: absent, empty, placeholder, weak (a JWT_SECRET too short, or public) or set. `equal`: to the operator's
    value. `times`: how often it is assigned."""

    kind: str
    equal: bool
    times: int


class Secrets(TypedDict):
    """`sha256` is of the whole file, None when there is none. `public`: the operator's keys whose values stand in the
    application's source."""

    sha256: str | None
    keys: dict[str, Key]
    public: list[str]


class Package(TypedDict):
    """`version` is None when it is not installed, and `complete` False when something that it needs is not; `range` (of
    package.json) and `locked` are None when the application lists none."""

    version: str | None
    complete: bool
    range: str | None
    locked: str | None


class Undone(TypedDict):
    """What undoing a deploy means for a file: was it `changed` by somebody else since; keys that a .env `loses`."""

    changed: bool
    loses: list[str]


class Applied(TypedDict):
    """`companies`: is there such a table. `columns`: how many of those asked for. `applied` is the ledger's SHA-256 of
    the migration, `file` that of the application's own file; None where there is none."""

    companies: bool
    columns: int
    applied: str | None
    file: str | None


class File(TypedDict):
    """`type`: absent, file or symlink. `content`, as text, of a symlink is its target's; None when nothing is there."""

    type: str
    target: str | None
    content: str | None


class Configuration(TypedDict):
    """`dump` is what `nginx -T` printed; `stale`: the workers are older than the configuration on disk."""

    dump: str
    available: File
    enabled: File
    certificate: bool
    running: bool
    stale: bool


class Api(TypedDict):
    """`app` is its name in pm2. It must load a change of `packages`; its requests wait at port `waiting_room`.

    Seconds: `start_timeout` until the port must answer, `settle_time` that the process must then stay the same.
    """

    app: str
    app_dir: str
    port: int
    packages: list[str]
    waiting_room: int
    start_timeout: int
    settle_time: int


class Running(TypedDict):
    """`status`: pm2's own word (online, errored, stopped, launching), `unknown` for an app that pm2 does not know, or
    `no daemon`. `stale`: it does not run, or is older than its files. `shadowed`: keys of .env that it ignores, as they
    are in the process's first environment, which wins (dotenv 17)."""

    status: str
    stale: bool
    shadowed: list[str]
