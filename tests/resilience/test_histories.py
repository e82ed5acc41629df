"""A few histories, and proof that they notice: four things broken on purpose are caught by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rehearsal.host import Host
from tests.resilience.__main__ import run, try_history
from tests.resilience.conftest import Mutate
from tests.resilience.histories import History, histories

pytestmark = pytest.mark.slow

COUNT = 5
# The ways back that a machine's mood decides, so that few drawn ones take them.
KNOWN = ("tokens refused; token @4.0 session killed", "tokens refused; token @3.0 pm2 killed")


def test_a_few_survive_and_heal(tmp_path: Path) -> None:
    drawn = histories(COUNT)
    assert [History.parse(each.name) for each in drawn] == drawn, "what is printed replays it"
    cases = [*drawn, *map(History.parse, KNOWN)]
    outcomes = run(cases, ("fault2", "fault3"), tmp_path / "book.jsonl")
    assert [outcome for outcome in outcomes if outcome.survived or outcome.healed] == []
    assert len(outcomes) == len(cases)


@pytest.mark.parametrize(
    ("file", "old", "new", "history", "problem"),
    [
        (
            "remote/services.py",
            "if aside := backups.set_aside(file, entry):",
            'if aside := "":',
            "tokens refused; token @4.0 .env edited",
            "/opt/ai-admin/.env lost a line of others",
        ),
        (
            "remote/lock.py",
            "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
            "pass",
            "token @2.0 second operator",
            "a second operator's run ended with ",
        ),
        (
            "channel.py",
            "if back is None and self.deploy:",
            "if not self.deploy:",
            "tokens refused; token @4.0 session killed",
            ".env has tokens that the application does not survive",
        ),
        ("tests/verify/table.py", "return 1", "return 0", "database away; verify", "verify: exit code 0, not [1]"),
    ],
    ids=[
        "an undo that overwrites what others wrote",
        "a lock that excludes nobody",
        "a killed session",
        "a verification that lies",
    ],
)
def test_a_mutant_is_caught(  # noqa: PLR0913, PLR0917 -- the mutation, the history and its end
    converged: Host, mutate: Mutate, file: str, old: str, new: str, history: str, problem: str
) -> None:
    outcome = try_history(History.parse(history), converged, mutate(file, old, new))
    assert any(problem in each for each in outcome.survived), outcome
