"""Secrets in .env: what is ours is as the operator wants it, every other byte stays."""

from __future__ import annotations

import base64
import json
import re

import pytest

from tests.converge.conftest import APP, BACKUPS, converge, only, read, tree, write
from tests.rehearsal.host import Host
from tests.rehearsal.story import Deployed, deploy

ENV = f"{APP}/.env"
STEP = "Secrets in .env"
PARTNER, APP_ID, JWT = "YCLIENTS_PARTNER_TOKEN", "YCLIENTS_APP_ID", "JWT_SECRET"
OWN = {PARTNER: "ab-cd_ef", APP_ID: "18289", JWT: "0123456789abcdef0123456789abcdef+/A="}


def lines(*keys: str) -> bytes:
    return "".join(f"{key}={OWN[key]}\n" for key in keys or OWN).encode()


LINES = lines()


def secrets(host: Host, dotenv: str | None = None, **environment: str) -> Deployed:
    """The step alone, twice: the API's restart is test_pm2.py's."""
    return converge(host, environment=environment, dotenv=dotenv, runbook=only(STEP))


def values(host: Host) -> dict[str, str]:
    """As the application's own dotenv reads them."""
    script = (
        f"console.log(JSON.stringify(require('{APP}/node_modules/dotenv').parse(require('fs').readFileSync('{ENV}'))))"
    )
    found: dict[str, str] = json.loads(host.ssh("node", "-e", f'"{script}"').stdout)
    return found


@pytest.fixture(scope="module")
def original(host: Host) -> bytes:
    """With the final newline that it lacks: FORMS has the form without."""
    return read(host, ENV) + b"\n"


@pytest.fixture(autouse=True)
def as_found(host: Host, original: bytes) -> None:
    write(host, ENV, original)


# --- whose value


def test_jwt_secret_is_made_once(host: Host) -> None:
    assert secrets(host).changed == [STEP]
    made = values(host)[JWT]
    assert len(base64.b64decode(made, validate=True)) == 32
    assert secrets(host, **{PARTNER: "a-token-came"}).changed == [STEP]
    assert values(host)[JWT] == made


def test_own_jwt_secret_wins_and_stays(host: Host) -> None:
    secrets(host)
    assert secrets(host, **{JWT: OWN[JWT]}).changed == [STEP]
    assert values(host)[JWT] == OWN[JWT]
    assert secrets(host).changed == []
    assert values(host)[JWT] == OWN[JWT]


def test_placeholder_of_jwt_secret_is_replaced(host: Host, original: bytes) -> None:
    write(host, ENV, original + "JWT_SECRET=сгенерируйте_случайную_строку_32_символа\n".encode())
    secrets(host)
    assert len(base64.b64decode(values(host)[JWT], validate=True)) == 32


@pytest.mark.parametrize("local", [None, "", "test_token_waiting_for_real", "ваш_partner_token_от_yclients"])
def test_what_is_missing_here_stays_there(host: Host, original: bytes, local: str | None) -> None:
    write(host, ENV, original + LINES)
    done = deploy(host, dotenv=None if local is None else f"{PARTNER}={local}\n", runbook=only(STEP))
    assert (done.code, done.changed, done.pending) == (0, [], []), done.output
    assert read(host, ENV) == original + LINES


def test_placeholder_there_is_replaced_when_the_token_comes(host: Host, original: bytes) -> None:
    waiting = LINES.replace(b"ab-cd_ef", b"test_token_waiting_for_real")
    write(host, ENV, original + waiting)
    assert secrets(host).pending == [PARTNER]
    assert read(host, ENV) == original + waiting
    assert secrets(host, dotenv=f"{PARTNER}=ab-cd_ef\n").pending == []
    assert read(host, ENV) == original + LINES


def test_a_second_operators_older_token_is_named(host: Host) -> None:
    """Their .env was not brought up to date: the plan says so before it becomes true."""
    secrets(host, **{PARTNER: "a-token-of-november"})
    assert "is yours up to date?" not in secrets(host, **{PARTNER: "a-token-of-december"}).output
    replaced = host.ssh("ls /var/backups/ai-admin-deploy").stdout.split()[-1]
    plan = deploy(host, "--dry", environment={PARTNER: "a-token-of-november"}, runbook=only(STEP))
    assert (
        f"{PARTNER} is replaced by the value that it had before deploy {replaced}: is yours up to date?" in plan.output
    )


# --- every other byte

FORMS = {
    "CRLF": (b"A=1\r\n# \r\nB='2'\r\n", b"A=1\r\n# \r\nB='2'\r\n" + LINES.replace(b"\n", b"\r\n")),
    "byte order mark": (b"\xef\xbb\xbfA=1\n", b"\xef\xbb\xbfA=1\n" + LINES),
    "no final newline": (b"A=1\nB=2", b"A=1\nB=2\n" + LINES),
    "no UTF-8": (b"# \xcf\xf0\xe8\xe2\xe5\xf2\nA=1\n", b"# \xcf\xf0\xe8\xe2\xe5\xf2\nA=1\n" + LINES),
    "empty": (b"", LINES),
    "duplicates, the last counts": (
        LINES + b"YCLIENTS_APP_ID=1\n#\nYCLIENTS_APP_ID=2\nA=1\n",
        lines(PARTNER, JWT) + b"#\n" + lines(APP_ID) + b"A=1\n",
    ),
    "export": (
        b"export JWT_SECRET=x\nA=1\n",
        b"export " + lines(JWT) + b"A=1\n" + lines(PARTNER, APP_ID),
    ),
    "Russian comments": (
        "# наш\nYCLIENTS_APP_ID=1 # номер\n# всё\n".encode(),
        "# наш\nYCLIENTS_APP_ID=18289 # номер\n# всё\n".encode() + lines(PARTNER, JWT),
    ),
    "a quoted value of many lines": (b'A="1\nJWT_SECRET=no\n2"\n', b'A="1\nJWT_SECRET=no\n2"\n' + LINES),
}


@pytest.mark.parametrize(("before", "after"), FORMS.values(), ids=FORMS.keys())
def test_foreign_bytes_stay(host: Host, before: bytes, after: bytes) -> None:
    write(host, ENV, before)
    others = {key: value for key, value in values(host).items() if key not in OWN}
    assert secrets(host, **OWN).changed == [STEP]
    assert read(host, ENV) == after
    assert values(host) == {**others, **OWN}


def test_the_whole_file_of_the_application(host: Host, original: bytes) -> None:
    secrets(host, **OWN)
    assert read(host, ENV) == original + LINES


# --- the file itself


def test_mode_owner_and_acl_stay(host: Host) -> None:
    host.ssh(f"chown www-data:adm {ENV} && chmod 640 {ENV} && setfacl -m u:backup:r {ENV}")
    before = host.ssh(f"getfacl -p {ENV}").stdout
    assert secrets(host).changed == [STEP]
    after = host.ssh(f"getfacl -p {ENV}").stdout
    host.ssh(f"setfacl -b {ENV} && chown root:root {ENV} && chmod 600 {ENV}")
    assert "user:backup:r--" in before
    assert after == before


def test_link_stays_a_link(host: Host) -> None:
    host.ssh(f"mv {ENV} /srv/shared.env && ln -s /srv/shared.env {ENV}")
    assert secrets(host).changed == [STEP]
    link = host.ssh(f"readlink {ENV}").stdout
    keys = values(host)
    host.ssh(f"mv -T /srv/shared.env {ENV}")
    assert link == "/srv/shared.env\n"
    assert JWT in keys


def test_missing_file_is_made_private(host: Host) -> None:
    host.ssh(f"rm {ENV}")
    assert secrets(host).changed == [STEP]
    assert host.ssh(f"stat -c '%a %U:%G' {ENV}").stdout == "600 root:root\n"
    assert list(values(host)) == [JWT]


def test_the_old_file_is_kept_of_ten_deploys(host: Host, original: bytes) -> None:
    host.ssh(f"rm -rf {BACKUPS}")
    early = [f"20200101T0000{second:02}Z" for second in range(12)]
    host.ssh(f"mkdir -p -m 700 {' '.join(f'{BACKUPS}/{name}' for name in early)}")
    done = deploy(host, runbook=only(STEP))
    assert (done.code, done.changed) == (0, [STEP]), done.output
    kept = sorted(host.ssh(f"ls {BACKUPS}").stdout.split())
    assert len(kept) == 10
    assert kept[:9] == early[3:]
    assert re.fullmatch(r"20[2-9]\d{5}T\d{6}Z", kept[9])
    assert read(host, f"{BACKUPS}/{kept[9]}{ENV}") == original
    modes = {what.split()[0] for what in tree(host, f"{BACKUPS}/{kept[9]}").values()}
    assert modes == {"drwx------", "-rw-------"}
