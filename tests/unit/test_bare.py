"""What bootstrap.py makes of a host that it does not know yet."""

from __future__ import annotations

import json
import socket
import subprocess
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
    assert now["domain"]
    assert "leads to nowhere, and this host is" in self_signed(look(Path("/none"), "none.invalid"), "none.invalid")
    assert self_signed({**now, "own": ["192.0.2.1", "2001:db8::1"], "domain": ["2001:db8::1"]}, "a") == ""
    why = self_signed({**now, "own": ["192.0.2.1"], "domain": ["192.0.2.2", "192.0.2.2"]}, "a.example")
    assert why == "a.example leads to 192.0.2.2, and this host is 192.0.2.1"


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


def test_an_env_without_the_password_of_redis_is_refused(etc: Path) -> None:
    (etc / ".env").write_text("PORT=3000\n")
    with pytest.raises(SystemExit, match="has no REDIS_PASSWORD"):
        remote.bare.passwords(app_dir=str(etc), first={}, database=False, apply=False)
