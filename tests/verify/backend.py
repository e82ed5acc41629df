"""testinfra's commands, run the way verification runs its own script: with the inventory's connection and sudo."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult


class Backend(BaseBackend):  # type: ignore[misc]  # testinfra has no types
    NAME = "verify"

    def __init__(self, name: str, run: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
        super().__init__(name)
        self._run = run

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        del kwargs
        script = self.get_command(command, *args)
        done = self._run(script)
        return self.result(done.returncode, self.encode(script), done.stdout, done.stderr)
