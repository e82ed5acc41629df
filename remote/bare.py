"""The passwords of a host that bootstrap.py sets up: they are made on the host, and never leave it."""

import json
import os
import pwd
import secrets
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress

from remote import Failure, dotenv, files
from remote.migration import elsewhere, identifier, literal, psql
from remote.processes import run

REDIS = "/etc/redis/redis.conf"
PORT = 6379  # Debian's
OWN = "/etc/redis/ai-admin.conf"
INCLUDE = f"\ninclude {OWN}\n"  # the last word of redis.conf counts


def passwords(*, app_dir: str, first: Mapping[str, str], database: bool, apply: bool) -> None:
    """The application's `.env` where there is none, of `first` and what is made here; redis and, with `database`,
    PostgreSQL take what that file says. Prints as JSON, and with `apply` does, what is not so yet. Exits 1 in one line.
    """
    path = f"{app_dir}/.env"
    try:
        env = dotenv.load(path)
        said = []
        if not os.path.exists(path):
            env = {**first, **_made(database)}
            said.append(f"{path}: {', '.join(env)}")
            if apply:
                text = "".join(f"{key}={value}\n" for key, value in env.items())
                files.write_whole(path, text.encode(), 0o600)
        if not env.get("REDIS_PASSWORD"):
            raise Failure(f"{path} has no REDIS_PASSWORD, which redis needs: write one into it, then run again")
        said += _redis(env["REDIS_PASSWORD"], apply)
        said += _role(path, env, apply) if database else []
        print(json.dumps(said))
    except (Failure, OSError) as error:
        sys.exit(files.why(error))


def _made(database: bool) -> dict[str, str]:
    """Hexadecimal: every parser of `.env` reads it alike."""
    redis = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "6379", "REDIS_PASSWORD": secrets.token_hex(24)}
    postgres = {"HOST": "127.0.0.1", "PORT": "5432", "DATABASE": "postgres", "USER": "ai_admin"}
    keys = {**postgres, "PASSWORD": secrets.token_hex(24)} if database else {}
    return {**redis, **{f"POSTGRES_{key}": value for key, value in keys.items()}}


def _redis(password: str, apply: bool) -> list[str]:
    """redis 7 reads \\xHH between double quotes as that byte."""
    quoted = "".join(f"\\x{byte:02x}" for byte in password.encode())
    wanted, main = f'requirepass "{quoted}"\n'.encode(), files.read(REDIS) or b""
    if files.read(OWN) == wanted and main.endswith(INCLUDE.encode()) and _opens(password.encode()):
        return []
    if apply:
        group = pwd.getpwnam("redis").pw_gid
        files.write_whole(OWN, wanted, 0o640, owner=(0, group))
        if not main.endswith(INCLUDE.encode()):
            files.write_whole(REDIS, main + INCLUDE.encode(), 0o640)
        if (done := run("systemctl", "restart", "redis-server")).status:
            raise Failure(f"systemctl restart redis-server: {done.stderr.strip()}")
    return ["redis asks for the password of .env"]


def _opens(password: bytes) -> bool:
    """Does the redis that runs take it? A run may have been killed before it was restarted."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", PORT), timeout=5) as redis:
        redis.sendall(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n" % (len(password), password))
        return redis.recv(64).startswith(b"+OK")
    return False


def _role(path: str, env: Mapping[str, str], apply: bool) -> list[str]:
    """The role as which the application connects to the database of this host; its rights come with the migration."""
    user, password = env.get("POSTGRES_USER", ""), env.get("POSTGRES_PASSWORD", "")
    is_ours = env.get("POSTGRES_HOST", "127.0.0.1") in ("127.0.0.1", "localhost", "::1")
    if elsewhere(env) or not is_ours or env.get("DATABASE_URL"):
        return []
    if not (user and password):
        raise Failure(
            f"{path} has no POSTGRES_USER and POSTGRES_PASSWORD, which PostgreSQL here needs: write them into it, "
            "then run again"
        )
    port = env.get("POSTGRES_PORT") or "5432"
    own = {"host": "127.0.0.1", "port": port, "dbname": "postgres", "user": user, "password": password}
    if psql(own, "SELECT 1;").status == 0:
        return []
    if apply:
        there = psql(None, f"SELECT 1 FROM pg_roles WHERE rolname = {literal(user)};").stdout.strip()
        done = psql(
            None, f"{'ALTER' if there else 'CREATE'} ROLE {identifier(user)} LOGIN PASSWORD {literal(password)};"
        )
        if done.status:  # its words may hold the password
            raise Failure(f"PostgreSQL did not take the password of role {user}: systemctl status postgresql")
    return [f"PostgreSQL: the password of role {user}"]
