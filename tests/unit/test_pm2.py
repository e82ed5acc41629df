import pytest

from operations.pm2 import check, reasons
from remote.readings import Running
from rules import APP_ID, JWT_SECRET
from settings import BadInput

CONVERGED: Running = {"status": "online", "stale": False, "shadowed": [], "fixed": [], "ending": ""}


def test_converged_needs_no_restart() -> None:
    assert reasons(CONVERGED, []) == []


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (
            {"status": "online", "stale": True, "shadowed": [], "fixed": [], "ending": ""},
            ["it is older than its files"],
        ),
        (
            {"status": "suspended", "stale": False, "shadowed": [], "fixed": [], "ending": ""},
            ["it is suspended by a signal (SIGSTOP)"],
        ),
        ({**CONVERGED, "status": "silent"}, ["it does not listen on its port"]),
        (
            {**CONVERGED, "status": "unproved"},
            ["somebody has just started it on what a deploy wrote, and it may not survive that"],
        ),
        ({"status": "errored", "stale": True, "shadowed": [], "fixed": [], "ending": ""}, ["pm2 says errored"]),
        ({"status": "unknown", "stale": True, "shadowed": [], "fixed": [], "ending": ""}, ["pm2 says unknown"]),
        ({"status": "no daemon", "stale": True, "shadowed": [], "fixed": [], "ending": ""}, ["pm2 says no daemon"]),
        (
            {"status": "online", "stale": False, "shadowed": [JWT_SECRET, APP_ID], "fixed": [], "ending": ""},
            ["pm2's own environment overrides JWT_SECRET, YCLIENTS_APP_ID of .env"],
        ),
    ],
)
def test_what_pm2_says(now: Running, why: list[str]) -> None:
    assert reasons(now, []) == why


def test_changes_ahead_count() -> None:
    """In the plan nothing is written yet, and the restart must be in it."""
    assert reasons(CONVERGED, ["packages will change"]) == ["packages will change"]
    stale: Running = {"status": "online", "stale": True, "shadowed": [], "fixed": [], "ending": ""}
    assert reasons(stale, [".env will change"]) == ["it is older than its files", ".env will change"]


def test_a_value_that_the_ecosystem_file_sets_is_refused_in_the_plan() -> None:
    now: Running = {**CONVERGED, "fixed": [JWT_SECRET]}
    check(now, [APP_ID], "api")
    with pytest.raises(BadInput, match="the ecosystem file sets JWT_SECRET for api, so the value"):
        check(now, [APP_ID, JWT_SECRET], "api")
