"""An operator's own folder: the bundle beside a `.env` of theirs, so that secrets come as they do in life."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.rehearsal.host import Host
from tests.rehearsal.story import without_secrets

ROOT = Path(__file__).parent.parent.parent
PYINFRA = str(Path(sys.executable).with_name("pyinfra"))
INVENTORY = "tests/rehearsal/inventory.py"


class Operator:
    """A folder of links to the bundle, outside of where the watcher looks. `dotenv` is its `.env`, mode 0600."""

    def __init__(self, host: Host, dotenv: dict[str, str]) -> None:
        self.host = host
        self.folder = host.folder / "operator"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for entry in ROOT.iterdir():
            if not entry.name.startswith(".") and entry.suffix != ".log":  # pyinfra's of a crash: it would write there
                (self.folder / entry.name).symlink_to(entry)
        self.write(dotenv)

    def write(self, dotenv: dict[str, str]) -> None:
        file = self.folder / ".env"
        file.write_text("".join(f"{key}='{value}'\n" for key, value in dotenv.items()))
        file.chmod(0o600)

    def command(self, *arguments: str, deploy: str = "deploy.py") -> list[str]:
        words = [deploy] if deploy else []
        return [PYINFRA, INVENTORY, *words, "--limit", self.host.name, *arguments]

    def run(self, *arguments: str, deploy: str = "deploy.py") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments, deploy=deploy),
            cwd=self.folder,
            env=without_secrets(),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
