"""The main job from nothing: a host, deploy without tokens, again, with tokens, again, verify."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.rehearsal.host import Host

ROOT = Path(__file__).parent.parent.parent
INVENTORY = "tests/rehearsal/inventory.py"
PYINFRA = str(Path(sys.executable).with_name("pyinfra"))
EVERYTHING = [
    "npm packages",
    "Database migration",
    "Secrets in .env",
    "Application source",
    "nginx site",
    "nginx reload",
    "API restart",
]


@dataclass(frozen=True)
class Deployed:
    """One run of deploy.py: pyinfra's exit code, what changed by name, the human output, seconds."""

    code: int
    changed: list[str]
    output: str
    seconds: float

    @property
    def pending(self) -> list[str]:
        keys = [line.split("pending: ", 1)[1].split()[0] for line in self.output.splitlines() if "pending: " in line]
        return sorted(set(keys))


def without_secrets() -> dict[str, str]:
    """This process's environment without tokens of whoever runs it: they are for no rehearsal."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("YCLIENTS_", "JWT_", "DATABASE_"))}


def deploy(  # noqa: PLR0913 -- each is something that an operator has a say in
    host: Host,
    *arguments: str,
    environment: dict[str, str] | None = None,
    dotenv: str | None = None,
    runbook: str | None = None,
    root: Path = ROOT,
    inventory: str = INVENTORY,
    file: str = "deploy.py",
) -> Deployed:
    """Run deploy.py as an operator would, with secrets from `environment` and the local .env `dotenv` alone.

    `runbook` is run in the place of deploy.py's own text. With `--dry`, `changed` is what would change.
    """
    own = root / ".venv/bin/pyinfra"  # of another version of the bundle
    command = [str(own) if own.exists() else PYINFRA, inventory, file, "--limit", host.name]
    started = time.monotonic()
    with copy_of_repository(root, dotenv, runbook) as folder:
        done = subprocess.run(
            [*command, "--json", *([] if "--dry" in arguments else ["-y"]), *arguments],  # -y would skip the plan
            cwd=folder,
            env={**without_secrets(), **(environment or {})},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    changed = []
    if done.stdout.strip():  # pyinfra 3.10 prints no JSON when the only host failed
        printed = json.loads(done.stdout)
        operations = printed["results"]["operations"] if printed["results"] else printed["plan"]
        changed = [each["name"] for each in operations if each.get("success") or each.get("hosts_with_change")]
    return Deployed(done.returncode, changed, done.stderr, time.monotonic() - started)


@contextmanager
def copy_of_repository(root: Path, dotenv: str | None, runbook: str | None) -> Iterator[Path]:
    """A folder of links to everything but the operator's own .env, whose real tokens are for no rehearsal."""
    with tempfile.TemporaryDirectory(prefix="rehearse-") as name:
        folder = Path(name)
        for each in root.iterdir():
            if not each.name.startswith((".", "__")) and each.suffix != ".log":  # pyinfra's, of a crash
                (folder / each.name).symlink_to(each)
        if runbook is not None:
            (folder / "deploy.py").unlink()
            (folder / "deploy.py").write_text(runbook, encoding="utf-8")
        if dotenv is not None:
            (folder / ".env").touch(0o600)
            (folder / ".env").write_text(dotenv, encoding="utf-8")
        yield folder


def tokens() -> dict[str, str]:
    return {
        "YCLIENTS_PARTNER_TOKEN": secrets.token_urlsafe(30),
        "YCLIENTS_APP_ID": str(secrets.randbelow(90000) + 10000),
    }


def run(host: Host) -> int:
    started = time.monotonic()
    print("The main job, end to end", file=sys.stderr)
    host.reset()
    have = tokens()
    wanted = ["YCLIENTS_APP_ID", "YCLIENTS_PARTNER_TOKEN"]
    chapters: list[tuple[str, dict[str, str], list[str], list[str]]] = [
        ("deploy, no tokens yet", {}, EVERYTHING, wanted),
        ("deploy again", {}, [], wanted),
        ("deploy, the tokens came", have, ["Secrets in .env", "API restart"], []),
        ("deploy again", have, [], []),
    ]
    for title, environment, changed, pending in chapters:
        done = deploy(host, environment=environment)
        right = done.code == 0 and done.changed == changed and done.pending == pending
        print(f"  {'✓' if right else '✗'} {title:<62} {done.seconds:5.1f} s", file=sys.stderr)
        print(f"      changed: {', '.join(done.changed) or 'nothing'}", file=sys.stderr)
        if done.pending:
            print(f"      pending: {', '.join(done.pending)}", file=sys.stderr)
        if not right:
            print(f"{done.output}\nexpected to change: {changed}, to be pending: {pending}", file=sys.stderr)
            return 1
    code = subprocess.run([sys.executable, "-m", "tests.verify", INVENTORY, "--limit", host.name], cwd=ROOT).returncode
    print(
        f"\n{time.monotonic() - started:.0f} s in all; the host stays up: {host.typed('ssh')}, {host.typed('down')}",
        file=sys.stderr,
    )
    return code
