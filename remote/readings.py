"""The shapes of what `read` returns in each noun's module, and of what they are asked. Plain data."""

from typing import Any, TypedDict


class Rules(TypedDict):
    """Which keys are ours, and what counts as no value: a pattern; for JWT_SECRET what is public, or shorter."""

    keys: list[str]
    placeholder: str
    public_defaults: list[str]
    min_jwt_secret: int


class Key(TypedDict):
    """`kind`: absent, empty, placeholder, weak (a JWT_SECRET too short, or public) or set. `equal`: to the operator's
    value. `times`: how often it is assigned. `before`: the last deploy before which it had the operator's value, where
    it has another by now; empty where no backup tells."""

    kind: str
    equal: bool
    times: int
    before: str


class Secrets(TypedDict):
    """`sha256` is of the whole file, None when there is none. `public`: the operator's keys whose values stand in the
    application's source."""

    sha256: str | None
    keys: dict[str, Key]
    public: list[str]


class Package(TypedDict):
    """`version` is None when it is not installed; `cause`: why the application's Node does not load it, empty where it
    does. `range` is of package.json, and None when the application lists none."""

    version: str | None
    cause: str
    range: str | None


class Relation(TypedDict):
    """A table, or what is used like one. `rows`: about how many. `columns`: by name, pg_type's typname and typcategory.
    `indexes`: by name, is it valid. `denied`: the roles that may not read and write it, or use its sequences. `owner`:
    whose it is, where the role that migrates may not act as that one; else empty."""

    schema: str
    rows: int
    columns: dict[str, tuple[str, str]]
    indexes: dict[str, bool]
    triggers: list[str]
    constraints: list[str]
    denied: list[str]
    owner: str


class Entry(TypedDict):
    """`kept`: how `restore` brings the file back: the path of a copy, {"link": target} for a symlink, None for nothing.
    `wrote`: the `state` that we gave the file then; None is unknown, of the bundle before 2026-11-24. `app`: whose
    deploy it was, by its name in pm2; empty is unknown. `undoes`: of a rollback, the deploy that it undid. `undone`: it
    was never written, or went back at once."""

    deploy: str
    app: str
    undoes: str
    kept: Any
    wrote: str | None
    undone: bool


class Undone(TypedDict):
    """What undoing a deploy of `app` means for a file: was it `changed` by somebody else since; keys that a .env
    `loses`. `is_back`: it is as it was before. `undoes`: of a rollback, the deploy that comes back."""

    app: str
    changed: bool
    is_back: bool
    loses: list[str]
    undoes: str


class Applied(TypedDict):
    """What the database holds of what the migration names, as the application's role finds it: `search_path`.

    `file`: the application's own; `applied`: the ledger's SHA-256 of it; None where there is none. `relations`: by name
    as it is found, with its schema before it where only so. `roles`: which must be able to use what is made.
    `elsewhere`: the database that the application's `.env` names, where the operator named none and it is not the
    host's; for people. Of the role that migrates: may it keep a ledger (`keeps`), and create in the schema (`creates`).
    """

    file: str | None
    applied: str | None
    search_path: str
    roles: list[str]
    relations: dict[str, Relation]
    functions: list[str]
    types: list[str]
    elsewhere: str
    keeps: bool
    creates: bool


class Configuration(TypedDict):
    """`dump` is what `nginx -T` printed; `links`: of the files in it those that are reached by a symlink, and what they
    really are. `available` is the content of the site's file in sites-available, None when there is none.
    `certificate`: is there one for the domain. `stale`: the workers are older than the configuration on disk."""

    dump: str
    links: dict[str, str]
    available: str | None
    certificate: bool
    running: bool
    stale: bool


class Api(TypedDict):
    """`app` is its name in pm2. It must load a change of `packages`.

    Seconds: `start_timeout` until the port must answer, `settle_time` that the process must then stay the same, at
    most (`remote.restart.SURE`).
    """

    app: str
    app_dir: str
    port: int
    packages: list[str]
    start_timeout: int
    settle_time: int


class Running(TypedDict):
    """`status`: pm2's own word (online, errored, stopped, launching), `unknown` for an app that pm2 does not know,
    or `no daemon`; and of an app that pm2 calls online: `suspended` where a signal holds it, `silent` where it does not
    listen on its port, `unproved` where somebody else has just started it on what a deploy wrote. `stale`: it does not
    run, or its oldest process is older than its files. `shadowed`: keys of .env that it ignores, as they are in the
    process's first environment, which wins (dotenv 17). `fixed`: those that its ecosystem file sets itself. `held`:
    those of `shadowed` (of an app that does not run by pm2's saved list) that pm2 has a value for, `held_in` this file.
    `folder`: where it runs, if that is another than the application's. `ending`: how it will end, in words;
    empty where none runs."""

    status: str
    stale: bool
    shadowed: list[str]
    fixed: list[str]
    held: list[str]
    held_in: str
    folder: str
    ending: str
