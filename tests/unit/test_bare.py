"""What bootstrap.py makes of a host that it does not know yet."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest

import remote.bare
from facts.bare import Bare, BareHost
from operations.bare import self_signed
from remote import Failure, files


def look(folder: Path, domain: str = "localhost") -> Bare:
    """The fact, read here."""
    command = BareHost().command(app_dir=str(folder), domain=domain).get_raw_value()
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return BareHost().process(done.stdout.splitlines())


def test_an_empty_folder_and_one_that_is_not(tmp_path: Path) -> None:
    assert look(tmp_path)["folder"] == look(tmp_path / "none")["folder"] == []
    (tmp_path / ".env").touch()
    (tmp_path / "a b").touch()
    assert look(tmp_path)["folder"] == [".env a b "]


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")])
def test_a_port_that_is_listened_at(tmp_path: Path, family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as taken:
        taken.bind((address, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with socket.create_connection(taken.getsockname()[:2]):  # the list may end with one that nobody listens at
            assert port in look(tmp_path)["port"]
    assert port not in look(tmp_path)["port"]


def test_where_the_name_leads() -> None:
    now = look(Path("/none"))
    assert "points to no address, and this host is" in self_signed(look(Path("/none"), "none.invalid"), "none.invalid")
    assert self_signed({**now, "own": ["192.0.2.1", "2001:db8::1"], "domain": ["2001:db8::1"]}, "a") == ""
    why = self_signed({**now, "own": ["192.0.2.1"], "domain": ["192.0.2.2", "192.0.2.2"]}, "a.example")
    assert why == "a.example points to 192.0.2.2, and this host is 192.0.2.1"


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """redis's folder and the application's in one."""
    (tmp_path / "redis.conf").write_text("requirepass of-before\n")
    monkeypatch.setattr(remote.bare, "REDIS", str(tmp_path / "redis.conf"))
    monkeypatch.setattr(remote.bare, "OWN", str(tmp_path / "own.conf"))
    return tmp_path


def ask(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    remote.bare.passwords(app_dir=str(folder), first={"PORT": "3000"}, database=False, apply=False)
    found: list[str] = json.loads(capsys.readouterr().out)
    return found


def test_a_look_says_what_lacks_and_writes_nothing(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ask(etc, capsys)
    assert said == [
        f"{etc}/.env: PORT, REDIS_HOST, REDIS_PORT, REDIS_PASSWORD",
        "redis asks for the password of .env",
    ]
    assert [each.name for each in etc.iterdir()] == ["redis.conf"]


def test_an_env_that_is_there_is_never_written(
    etc: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = etc / ".env"
    env.write_text("REDIS_PASSWORD='пароль \\ \"#'\n")
    before = env.read_bytes(), env.stat().st_mtime_ns, env.stat().st_ino

    def refuse(path: str, *_: object, **__: object) -> None:
        raise Failure(f"wrote {path}")

    monkeypatch.setattr(files, "write_whole", refuse)
    monkeypatch.setattr("pwd.getpwnam", lambda _: type("", (), {"pw_gid": 0}))  # no redis here
    assert ask(etc, capsys) == ["redis asks for the password of .env"]
    with pytest.raises(SystemExit, match=r"wrote .*/own\.conf"):
        remote.bare.passwords(app_dir=str(etc), first={}, database=False, apply=True)
    assert (env.read_bytes(), env.stat().st_mtime_ns, env.stat().st_ino) == before


@pytest.mark.parametrize(("answer", "takes"), [(b"+OK\r\n", True), (b"-WRONGPASS no\r\n", False), (None, False)])
def test_a_redis_that_was_not_restarted(
    etc: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: bytes | None, takes: bool
) -> None:
    """Both files are as they must be: a run was killed before the restart, or redis did not come back."""
    (etc / ".env").write_text("REDIS_PASSWORD=ab\n")
    (etc / "own.conf").write_text('requirepass "\\x61\\x62"\n')
    monkeypatch.setattr(remote.bare, "INCLUDE", f"\ninclude {etc}/own.conf\n")
    (etc / "redis.conf").write_text(remote.bare.INCLUDE)
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(remote.bare, "PORT", server.getsockname()[1])

        def serve() -> None:
            connection, _ = server.accept()
            heard.append(connection.recv(1000))
            connection.sendall(answer or b"")
            connection.close()

        redis = threading.Thread(target=serve)
        redis.start()
        assert (ask(etc, capsys) == []) is takes
        redis.join(10)
    assert heard == [b"*2\r\n$4\r\nAUTH\r\n$2\r\nab\r\n"]


@pytest.mark.parametrize(
    ("env", "refused"),
    [
        ("", True),
        ("POSTGRES_HOST=::1\nPOSTGRES_USER=a\n", True),
        ("POSTGRES_HOST=db.example.org\n", False),
        ("SUPABASE_URL=https://a.supabase.co\n", False),
        ("DATABASE_URL=postgresql://a:b@localhost/c\n", False),
    ],
)
def test_an_env_without_the_role_of_its_database(etc: Path, env: str, refused: bool) -> None:
    (etc / ".env").write_text(f"REDIS_PASSWORD=ab\n{env}")
    run = partial(remote.bare.passwords, app_dir=str(etc), first={}, database=True, apply=False)
    if refused:
        with pytest.raises(SystemExit, match="has no POSTGRES_USER and POSTGRES_PASSWORD"):
            run()
    else:
        run()


def test_an_env_without_the_password_of_redis_is_refused(etc: Path) -> None:
    (etc / ".env").write_text("PORT=3000\n")
    with pytest.raises(SystemExit, match="has no REDIS_PASSWORD"):
        remote.bare.passwords(app_dir=str(etc), first={}, database=False, apply=False)
