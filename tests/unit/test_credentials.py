from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import credentials
from credentials import COMMAND, DATABASE_URL, LIBPQ, Credentials, Secret
from rules import APP_ID, JWT_SECRET, KEYS, PARTNER_TOKEN, PUBLIC_DEFAULTS
from settings import BadInput

LONG = "0123456789abcdef0123456789abcdef"


def load(tmp_path: Path, text: str | bytes = b"", /, **environment: str) -> Credentials:
    file = tmp_path / ".env"
    file.touch(0o600)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return credentials.load(environment, file)


def refused(tmp_path: Path, text: str | bytes = b"", /, **environment: str) -> str:
    """The message, which must be one line without what was secret in the input."""
    with pytest.raises(BadInput) as error:
        load(tmp_path, text, **environment)
    message = str(error.value)
    assert "\n" not in message and "hunter2" not in message
    assert error.value.__suppress_context__ or error.value.__context__ is None
    return message


# --- sources


def test_no_source_at_all(tmp_path: Path) -> None:
    assert credentials.load({}, tmp_path / ".env") == Credentials({}, None)


def test_precedence(tmp_path: Path) -> None:
    prints = tmp_path / "prints"
    prints.write_text(f"{PARTNER_TOKEN}=command\n{APP_ID}=command\n")
    file = f"{PARTNER_TOKEN}=file\n{APP_ID}=file\n{JWT_SECRET}={LONG}\n"
    found = load(tmp_path, file, **{COMMAND: f"cat {prints}", PARTNER_TOKEN: "environment"})
    assert found.keys == {PARTNER_TOKEN: "environment", APP_ID: "command", JWT_SECRET: LONG}


def test_an_empty_variable_does_not_hide_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, f"{APP_ID}=file", **{APP_ID: ""}).keys == {APP_ID: "file"}


def test_nor_does_one_with_nothing_but_blanks_or_quotes(tmp_path: Path) -> None:
    for blank in (" ", "''", '" "'):
        assert load(tmp_path, f"{APP_ID}=file", **{APP_ID: blank}).keys == {APP_ID: "file"}


def test_placeholders_count_as_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wild = (
        "test_token_waiting_for_real",
        "ваш_partner_token_от_yclients",
        "ваш_application_id_от_yclients",
        "ваш_токен",
        "токен_от_YClients",
        "вставьте_токен_сюда",
        "TOKEN_FROM_YCLIENTS",
        "…",
        "...",
    )
    for placeholder in (*wild, "сгенерируйте_случайную_строку_32_символа", "ChangeMe", "change-me", " TODO ", "xxx"):
        assert load(tmp_path, **{PARTNER_TOKEN: placeholder}).keys == {}
        told = [record.getMessage() for record in caplog.records if "is a placeholder" in record.getMessage()]
        assert told == [f"{PARTNER_TOKEN}: the value in your environment is a placeholder, and counts as missing"]
        caplog.clear()


def test_values_are_taken_as_they_stand(tmp_path: Path) -> None:
    """No interpolation: a $ in a token is a $."""
    assert load(tmp_path, f"A=1\n{APP_ID}='pa$$A # word'\n").keys == {APP_ID: "pa$$A # word"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A=1\nnot a key\n", "2 is not KEY=value"),
        ("\n\n# c\n\n\nnot a key\n", "6 is not KEY=value"),
        (f"{APP_ID}: 5\n", "1 is not KEY=value"),
        (f"A=1\r\n{APP_ID}='open hunter2\r\nB=2\r\n", "2 has a quote that is not closed"),
        (f'{APP_ID}="open hunter2', "1 has a quote that is not closed"),
    ],
)
def test_a_bad_line_is_named_by_number(tmp_path: Path, text: str, said: str) -> None:
    assert f".env: line {said}" in refused(tmp_path, text)


def test_not_utf8(tmp_path: Path) -> None:
    assert "UTF-8" in refused(tmp_path, b"A=\xe9\n")


def test_a_folder_instead(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read: IsADirectoryError"):
        credentials.load({}, tmp_path)


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """Password managers mount `.env` as one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    threading.Thread(target=lambda: pipe.write_text(f"{APP_ID}=1\n")).start()
    assert credentials.load({}, pipe).keys == {APP_ID: "1"}


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1), (0o666, 1)])
def test_a_file_that_others_can_read(tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: int) -> None:
    load(tmp_path, f"{JWT_SECRET}={LONG}")
    assert not caplog.records
    (tmp_path / ".env").chmod(mode)
    load(tmp_path)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == warned
    assert all(f"chmod 600 {tmp_path}/.env" in warning and "hunter2" not in warning for warning in warnings)


# --- the command


def test_command_named_in_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, f"{COMMAND}=\"printf '%s=%s' {APP_ID} 'a b'\"").keys == {APP_ID: "a b"}


def test_no_shell(tmp_path: Path) -> None:
    assert load(tmp_path, **{COMMAND: f"echo {APP_ID}=$(id);true"}).keys == {APP_ID: "$(id);true"}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (f"sh -c 'echo {APP_ID}=hunter2; exit 3'", "failed with exit code 3"),
        ("no-such-program --token hunter2", "cannot be run (No such file or directory)"),
        ("echo 'hunter2", "is not a command line"),
        (" ", "is not a command line"),
        ("echo hunter2", "the command's output: line 1 is not KEY=value"),
        ("echo A=hunter2", "prints none of YCLIENTS_PARTNER_TOKEN, YCLIENTS_APP_ID, JWT_SECRET"),
        ("printf 'A=1\\nhunter2 is it'", "the command's output: line 2 is not KEY=value"),
        ("printf '\\377'", "not UTF-8"),
    ],
)
def test_a_command_that_does_not_do(tmp_path: Path, command: str, says: str) -> None:
    message = refused(tmp_path, **{COMMAND: command})
    assert message.startswith(f"{COMMAND}: ") and says in message


def test_a_command_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "COMMAND_TIMEOUT", 0.1)
    assert refused(tmp_path, **{COMMAND: "sleep 20"}) == f"{COMMAND}: the command did not end within 0.1 s"


@pytest.fixture
def nothing_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An operator who has set nothing, and of whom nothing is remembered, before or after."""
    monkeypatch.chdir(tmp_path)
    for name in (*KEYS, DATABASE_URL):
        monkeypatch.delenv(name, raising=False)
    credentials._of_operator.cache_clear()
    yield monkeypatch
    credentials._of_operator.cache_clear()


def test_read_once_in_a_run(tmp_path: Path, nothing_read: pytest.MonkeyPatch) -> None:
    """For three hosts the operator is asked for one passphrase."""
    nothing_read.setenv(COMMAND, f"sh -c 'echo x >> {tmp_path}/runs; echo {APP_ID}=1'")
    assert credentials.of_operator() is credentials.of_operator()
    assert (tmp_path / "runs").read_text() == "x\n"


# --- values


@pytest.mark.parametrize(
    "pasted",
    [
        " hunter2",
        "hunter2\n",
        "\thunter2 ",
        "'hunter2'",
        '"hunter2"',
        '" hunter2 "',
        "«hunter2»",
        "“hunter2”",
        "\ufeffhunter2",
        "\u00a0hunter2\u200b",
        "\"'hunter2'\"",
    ],
)
def test_blanks_and_quotes_around_a_value(tmp_path: Path, caplog: pytest.LogCaptureFixture, pasted: str) -> None:
    assert load(tmp_path, **{PARTNER_TOKEN: pasted}).keys == {PARTNER_TOKEN: "hunter2"}
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(PARTNER_TOKEN) and "hunter2" not in warning


@pytest.mark.parametrize("value", ["hunter2", "it's", 'a"b"', "'", "x'", "'a\""])
def test_a_value_that_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture, value: str) -> None:
    if value[0] != "'":  # that one no .env can carry
        assert load(tmp_path, **{PARTNER_TOKEN: value}).keys == {PARTNER_TOKEN: value}
    assert not caplog.records


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("hunter2\nX=1", "holds a line break or control character"),
        ("hunter2\x00", "holds a line break or control character"),
        ("${hunter2}", "contains ${, or quotes together with # or backslashes"),
        ("hunter2'\"#", "contains ${, or quotes together with # or backslashes"),
    ],
)
def test_a_value_that_cannot_be_written(tmp_path: Path, value: str, why: str) -> None:
    assert refused(tmp_path, **{PARTNER_TOKEN: value}).startswith(f"{PARTNER_TOKEN}: {why}")


def test_short_jwt_secret(tmp_path: Path) -> None:
    assert "under 32 characters" in refused(tmp_path, **{JWT_SECRET: "hunter2" + "x" * 24})
    assert load(tmp_path, **{JWT_SECRET: "x" * 32}).keys == {JWT_SECRET: "x" * 32}


@pytest.mark.parametrize("default", PUBLIC_DEFAULTS)
def test_a_public_jwt_secret(tmp_path: Path, default: str) -> None:
    assert "public default" in refused(tmp_path, **{JWT_SECRET: default})


def test_secrets_do_not_show(tmp_path: Path) -> None:
    found = load(
        tmp_path, **{PARTNER_TOKEN: "hunter2", JWT_SECRET: "hunter2" * 8, DATABASE_URL: "postgresql://u:hunter2@h/d"}
    )
    for shown in (repr(found), f"{found}", repr(found.keys), repr(found.database()), f"{Secret('hunter2')!r}"):
        assert "hunter2" not in shown and "<secret>" in shown


# --- DATABASE_URL


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h:6543/d", {"host": "h", "port": "6543", "dbname": "d", "user": "u", "password": "p"}),
        ("postgres://u:p@h", {"host": "h", "port": "5432", "dbname": "postgres", "user": "u", "password": "p"}),
        (
            "postgresql://u.x:p%40%2F%3A%23%25%20%D0%9F@h/my%20db?sslmode=require",
            {
                "host": "h",
                "port": "5432",
                "dbname": "my db",
                "user": "u.x",
                "password": "p@/:#% П",
                "sslmode": "require",
            },
        ),
        ("postgresql://u:p:q@h/d", {"host": "h", "port": "5432", "dbname": "d", "user": "u", "password": "p:q"}),
        ("postgresql://u@[::1]/d", {"host": "::1", "port": "5432", "dbname": "d", "user": "u"}),
        ("postgresql:///d?host=/run/postgresql", {"host": "/run/postgresql", "port": "5432", "dbname": "d"}),
    ],
)
def test_database_url(tmp_path: Path, url: str, expected: dict[str, str]) -> None:
    assert load(tmp_path, **{DATABASE_URL: url}).database() == expected


FULL = {"sslmode": "verify-full", "sslrootcert": "/ca.crt"}


@pytest.mark.parametrize(
    ("parameters", "ca", "expected"),
    [
        ("", "", {}),
        ("", "/ca.crt", FULL),
        ("?sslmode=require", "/ca.crt", FULL),
        ("?sslmode=verify-ca", "/ca.crt", {"sslmode": "verify-ca", "sslrootcert": "/ca.crt"}),
        ("?sslmode=verify-full&sslrootcert=/ca.crt", "", FULL),
        ("?sslmode=verify-full&sslrootcert=system", "", {"sslmode": "verify-full", "sslrootcert": "system"}),
        ("?ssl=true", "", {"sslmode": "require"}),
        ("?sslmode=verify-full&ssl=true", "", {"sslmode": "verify-full"}),
        ("?sslmode=no-verify&uselibpqcompat=true", "", {"sslmode": "require"}),
        ("?pgbouncer=true&connection_limit=1&pool_timeout=0&schema=public", "", {}),
        ("?sslmode=require&supa=base-pooler.x&workaround=supabase-pooler.vercel", "", {"sslmode": "require"}),
        ("?application_name=a+b%20c&connect_timeout=3", "", {"application_name": "a+b c", "connect_timeout": "3"}),
    ],
)
def test_parameters_of_the_url(tmp_path: Path, parameters: str, ca: str, expected: dict[str, str]) -> None:
    """Those that another client knows are translated or left out: psql would refuse the connection for one of them."""
    database = load(tmp_path, **{DATABASE_URL: f"postgresql://u:hunter2@h/d{parameters}"}).database(ca)
    own = {"host": "h", "port": "5432", "dbname": "d", "user": "u", "password": "hunter2"}
    assert database == {**own, **expected}
    assert database.keys() <= LIBPQ.keys()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("?schema=salons", "psql has no parameter schema: leave it out, and `ALTER ROLE"),
        ("?sslaccept=strict", "psql has no parameter sslaccept: write sslmode=require, or sslmode=verify-full"),
        ("?ssl=1", "psql has no parameter ssl: write sslmode=require"),
        ("?sslmode=verify_full", "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("?sslmode=verify-full&sslrootcert=ca.crt", "sslrootcert must be an absolute path on the server"),
        ("?hsot=x", "psql has no parameter hsot: leave it out"),
    ],
)
def test_a_parameter_that_is_refused(tmp_path: Path, parameters: str, said: str) -> None:
    message = refused(tmp_path, **{DATABASE_URL: f"postgresql://u:hunter2@h/d{parameters}"})
    assert message.startswith(f"{DATABASE_URL}: {said}")


@pytest.mark.parametrize(
    ("url", "pooled"),
    [
        ("postgresql://u:p@h:6543/d", True),
        ("postgresql://u:p@h/d?sslmode=require&pgbouncer=true", True),
        ("postgresql://u:p@h/d?pgbouncer=false", False),
        ("postgresql://u:p@h:5432/d", False),
    ],
)
def test_a_pooler_by_transaction(tmp_path: Path, url: str, pooled: bool) -> None:
    assert load(tmp_path, **{DATABASE_URL: url}).pooled == pooled
    assert not load(tmp_path).pooled


def test_no_database_url_is_the_hosts_own(tmp_path: Path) -> None:
    assert load(tmp_path).database() is None


@pytest.mark.parametrize(
    "url",
    [
        *("hunter2", "mysql://u:hunter2@h/d", "postgresql://u:hunter2/x@h/d", "postgresql://u:x/hunter2@h/d"),
        *("postgresql://u:hunter2#x@h/d", "postgresql://u:x?hunter2@h/d", "postgresql://u:[hunter2@h/d"),
        *("postgresql://u:1/hunter2@h/d", "postgresql://u:1?hunter2@h/d", "postgresql://u:hunter2@h:99999/d"),
        *("postgresql://u:hunter2%0Ax=y@h/d", "postgresql://u:hunter2@h:port/d"),
    ],
)
def test_database_url_that_is_none(tmp_path: Path, url: str) -> None:
    assert refused(tmp_path, **{DATABASE_URL: url}).startswith(f"{DATABASE_URL}: ")


def test_read_once_by_hosts_side_by_side(tmp_path: Path, nothing_read: pytest.MonkeyPatch) -> None:
    """pyinfra loads a deploy for all hosts at once."""
    nothing_read.setenv(COMMAND, f"sh -c 'echo x >> {tmp_path}/runs; sleep 0.2; echo {APP_ID}=1'")
    threads = [threading.Thread(target=credentials.of_operator) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "runs").read_text() == "x\n"


# --- a key or a line that nothing reads


@pytest.mark.parametrize(
    ("key", "meant"),
    [("YCLIENT_PARTNER_TOKEN", PARTNER_TOKEN), ("yclients_app_id", APP_ID), ("JWT_SECERT", JWT_SECRET)],
)
def test_a_misspelt_key_is_named(tmp_path: Path, key: str, meant: str) -> None:
    message = refused(tmp_path, f"{key}=hunter2\n")
    assert message.endswith(f"nothing reads {key}; did you mean {meant}?")


def test_a_line_that_is_only_a_token_is_named(tmp_path: Path) -> None:
    assert "line 2 is not KEY=value" in refused(tmp_path, "# the token:\nhunter2\n")


def test_a_key_beside_ours_is_no_mistake(tmp_path: Path) -> None:
    assert load(tmp_path, f"{JWT_SECRET}_OLD=x\n{JWT_SECRET}={LONG}\nOTHER=1\n").keys == {JWT_SECRET: LONG}
