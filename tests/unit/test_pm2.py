import pytest

from operations.pm2 import reasons
from remote.readings import Running
from rules import APP_ID, JWT_SECRET

CONVERGED: Running = {"status": "online", "stale": False, "shadowed": [], "ending": ""}


def test_converged_needs_no_restart() -> None:
    assert reasons(CONVERGED, []) == []


@pytest.mark.parametrize(
    ("now", "why"),
    [
        ({"status": "online", "stale": True, "shadowed": [], "ending": ""}, ["it is older than its files"]),
        (
            {"status": "suspended", "stale": False, "shadowed": [], "ending": ""},
            ["it is suspended by a signal (SIGSTOP)"],
        ),
        ({"status": "errored", "stale": True, "shadowed": [], "ending": ""}, ["pm2 says errored"]),
        ({"status": "unknown", "stale": True, "shadowed": [], "ending": ""}, ["pm2 says unknown"]),
        ({"status": "no daemon", "stale": True, "shadowed": [], "ending": ""}, ["pm2 says no daemon"]),
        (
            {"status": "online", "stale": False, "shadowed": [JWT_SECRET, APP_ID], "ending": ""},
            ["pm2's own record hides JWT_SECRET, YCLIENTS_APP_ID of .env"],
        ),
    ],
)
def test_what_pm2_says(now: Running, why: list[str]) -> None:
    assert reasons(now, []) == why


def test_changes_ahead_count() -> None:
    """In the plan nothing is written yet, and the restart must be in it."""
    assert reasons(CONVERGED, ["packages will change"]) == ["packages will change"]
    stale: Running = {"status": "online", "stale": True, "shadowed": [], "ending": ""}
    assert reasons(stale, [".env will change"]) == ["it is older than its files", ".env will change"]
