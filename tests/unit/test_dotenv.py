"""What becomes of the three keys: the look at the host, and the decision."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from operations.dotenv import changes
from remote import backups, dotenv
from remote.readings import Key, Secrets
from rules import APP_ID, DOTENV, JWT_SECRET, KEYS, PARTNER_TOKEN
from settings import BadInput

KINDS = ("absent", "empty", "placeholder", "weak", "set")
SET: Key = {"kind": "set", "equal": False, "times": 1, "before": ""}


def decide(key: str, kind: str, *, wanted: bool, equal: bool = False, times: int = 1) -> tuple[str | None, bool, bool]:
    """Of one key, the others being there: why it is set, whether doubles go, whether it is pending."""
    keys = {**dict.fromkeys(KEYS, SET), key: Key(kind=kind, equal=equal, times=times, before="")}
    change = changes({"sha256": "sha", "keys": keys, "public": []}, {key: "123456789"} if wanted else {})
    assert {*change.set, *change.once, *change.pending} <= {key}
    assert bool(change) is bool(change.set or change.once)
    return change.set.get(key), change.once == [key], change.pending == [key]


@pytest.mark.parametrize(("key", "kind"), list(itertools.product(KEYS, KINDS)))
def test_the_operators_value_wins(key: str, kind: str) -> None:
    assert decide(key, kind, wanted=True) == ("is added" if kind == "absent" else "is replaced", False, False)


def test_an_older_value_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an operator whose own .env was not brought up to date: nothing else tells it from a new token."""
    monkeypatch.setattr(backups, "BACKUPS", str(tmp_path / "backups"))
    env, first, second, third, fourth, fifth = tmp_path / ".env", *(f"token-number-{each}" for each in range(1, 6))
    for deploy, token in (("1", first), ("2", second), ("3", second), ("4", third)):
        env.write_text(f"{PARTNER_TOKEN}={token}\n")
        backups.keep(deploy, str(env), wrote="")
    for token, before in ((first, "1"), (second, "3"), (third, "4"), (fourth, ""), (fifth, "")):
        now = look(tmp_path, f"{PARTNER_TOKEN}={fourth}\nJWT_SECRET={'x' * 32}\n".encode(), **{PARTNER_TOKEN: token})
        assert now["keys"][PARTNER_TOKEN]["before"] == before
        older = f" by the value that it had before deploy {before}: is yours up to date?" if before else ""
        replaced = {} if token == fourth else {PARTNER_TOKEN: f"is replaced{older}"}
        assert changes(now, {PARTNER_TOKEN: token}).set == replaced


@pytest.mark.parametrize("key", KEYS)
def test_the_same_value_is_left(key: str) -> None:
    assert decide(key, "set", wanted=True, equal=True) == (None, False, False)
    assert decide(key, "set", wanted=True, equal=True, times=2) == (None, True, False)


@pytest.mark.parametrize("key", [PARTNER_TOKEN, APP_ID])
@pytest.mark.parametrize("kind", KINDS)
def test_a_token_that_the_operator_lacks(key: str, kind: str) -> None:
    """It never overwrites one on the host; what is no token there is pending."""
    assert decide(key, kind, wanted=False) == (None, False, kind != "set")


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("absent", "is made"),
        ("empty", "is replaced by a new one, as the old one is empty"),
        ("placeholder", "is replaced by a new one, as the old one is placeholder"),
        ("weak", "is replaced by a new one, as the old one is weak"),
        ("set", None),
    ],
)
def test_a_jwt_secret_is_made_once(kind: str, why: str | None) -> None:
    assert decide(JWT_SECRET, kind, wanted=False) == (why, False, False)


@pytest.mark.parametrize("key", KEYS)
def test_doubles_on_the_host_go(key: str) -> None:
    assert decide(key, "set", wanted=False, times=2) == (None, True, False)


# --- the look


def look(folder: Path, content: bytes | None, **wanted: str) -> Secrets:
    file = folder / ".env"
    if content is not None:
        file.write_bytes(content)
    found = dotenv.read(path=str(file), values=wanted, rules=DOTENV)
    assert not any(value in str(found) for value in wanted.values())
    return found


@pytest.mark.parametrize(
    ("content", "kind", "times"),
    [
        (None, "absent", 0),
        (b"", "absent", 0),
        (b"#JWT_SECRET=x\n", "absent", 0),
        (b"A='\nJWT_SECRET=x\n'\n", "absent", 0),
        (b"JWT_SECRET_OLD=x\nMY_JWT_SECRET=y\n", "absent", 0),
        (b"JWT_SECRET=\n", "empty", 1),
        (b"JWT_SECRET='  '\n", "empty", 1),
        (b"JWT_SECRET=# to come\n", "empty", 1),
        ("JWT_SECRET=сгенерируйте_случайную_строку_32_символа\n".encode(), "placeholder", 1),
        (b'JWT_SECRET="ChangeMe" # !\n', "placeholder", 1),
        (b"JWT_SECRET=" + b"x" * 31 + b"\n", "weak", 1),
        (b"JWT_SECRET=" + b"x" * 20 + b"#" + b"x" * 20 + b"\n", "weak", 1),
        (b"JWT_SECRET=default-jwt-secret-change-in-production\n", "weak", 1),
        (b"JWT_SECRET=" + b"x" * 32 + b"\n", "set", 1),
        (b"\xef\xbb\xbfexport JWT_SECRET = '" + b"#" * 32 + b"'\r\n", "set", 1),
        (b"JWT_SECRET: " + b"x" * 32, "set", 1),
        (b"JWT_SECRET=\nA=1\n  export JWT_SECRET=" + b"x" * 32, "set", 2),
        (b"JWT_SECRET=" + b"x" * 32 + b"\rJWT_SECRET=\r", "empty", 2),
        (b"JWT_SECRET=" + b"\xe9" * 32 + b"\n", "set", 1),
    ],
)
def test_kinds(tmp_path: Path, content: bytes | None, kind: str, times: int) -> None:
    found = look(tmp_path, content)
    assert found["keys"][JWT_SECRET] == {"kind": kind, "equal": False, "times": times, "before": ""}
    assert (found["sha256"] is None) == (content is None)


def test_what_stands_in_the_source_is_weak(tmp_path: Path) -> None:
    """Whatever the application's default is today: it is read there, and in no list."""
    default = "nobody-has-seen-this-default-before-2026"
    (tmp_path / "src/api").mkdir(parents=True)
    (tmp_path / "src/api/auth.js").write_text(f"const secret = process.env.JWT_SECRET || '{default}';\n")
    dotenv = f"JWT_SECRET={default}\nYCLIENTS_APP_ID=secret\n".encode()
    found = look(tmp_path, dotenv)
    assert (found["keys"][JWT_SECRET]["kind"], found["keys"][APP_ID]["kind"], found["public"]) == ("weak", "set", [])
    own = look(tmp_path, dotenv, **{JWT_SECRET: default, APP_ID: "secret"})
    assert own["public"] == [JWT_SECRET]
    with pytest.raises(BadInput, match="your own value stands in the application's source"):
        changes(own, {JWT_SECRET: default})
    assert look(tmp_path, b"JWT_SECRET=" + b"x" * 32, **{JWT_SECRET: "x" * 32})["public"] == []


def test_what_can_be_no_token_replaces_none(tmp_path: Path) -> None:
    """Else a value from a manual, say, took the place of one that works, and the run succeeded."""
    for key, value in ((PARTNER_TOKEN, "Bearer hunter2"), (APP_ID, "hunter2")):
        found = look(tmp_path, f"{key}=5dfk3jr8sd9fk3jr8sd9\n".encode(), **{key: value})
        with pytest.raises(
            BadInput, match=f"{key}: your value .*; leave it out until you have the right one"
        ) as refusal:
            changes(found, {key: value})
        assert "hunter2" not in str(refusal.value)
    same = look(tmp_path, b"YCLIENTS_APP_ID=hunter2\n", **{APP_ID: "hunter2"})
    assert changes(same, {APP_ID: "hunter2"}).set.keys() <= {JWT_SECRET}, "what is there already is verification's"


def test_a_short_token_is_not_weak(tmp_path: Path) -> None:
    keys = look(tmp_path, b"YCLIENTS_APP_ID=123\nYCLIENTS_PARTNER_TOKEN=test_token_waiting_for_real\n")["keys"]
    assert (keys[APP_ID]["kind"], keys[PARTNER_TOKEN]["kind"]) == ("set", "placeholder")


def test_equal(tmp_path: Path) -> None:
    found = look(tmp_path, b"YCLIENTS_APP_ID='12 345'\n", **{APP_ID: "12 345", PARTNER_TOKEN: "else"})
    assert [name for name, key in found["keys"].items() if key["equal"]] == [APP_ID]
