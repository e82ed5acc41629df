import pytest

from operations.pm2 import check, reasons
from remote.pm2 import STOPPED
from remote.readings import Key, Running, Secrets
from rules import APP_ID, JWT_SECRET, KEYS
from settings import BadInput

CONVERGED: Running = {**STOPPED, "status": "online", "stale": False, "shadowed": []}


def test_converged_needs_no_restart() -> None:
    assert reasons(CONVERGED, []) == []


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (
            {**STOPPED, "status": "online", "stale": True, "shadowed": []},
            ["it is older than its files"],
        ),
        (
            {**STOPPED, "status": "suspended", "stale": False, "shadowed": []},
            ["it is suspended by a signal (SIGSTOP)"],
        ),
        ({**CONVERGED, "status": "silent"}, ["it does not listen on its port"]),
        (
            {**CONVERGED, "status": "unproved"},
            ["somebody has just started it on what a deploy wrote, and it may not survive that"],
        ),
        (
            {**STOPPED, "status": "errored", "stale": True, "shadowed": []},
            ["pm2 says errored"],
        ),
        (
            {**STOPPED, "status": "unknown", "stale": True, "shadowed": []},
            ["pm2 says unknown"],
        ),
        (
            {**STOPPED, "status": "no daemon", "stale": True, "shadowed": []},
            ["pm2 says no daemon"],
        ),
        (
            {
                "status": "online",
                "stale": False,
                "shadowed": [JWT_SECRET, APP_ID],
                "alone": [],
                "fixed": [],
                "ending": "",
            },
            ["pm2's own environment overrides JWT_SECRET, YCLIENTS_APP_ID of .env"],
        ),
    ],
)
def test_what_pm2_says(now: Running, why: list[str]) -> None:
    assert reasons(now, []) == why


def test_changes_ahead_count() -> None:
    """In the plan nothing is written yet, and the restart must be in it."""
    assert reasons(CONVERGED, ["packages will change"]) == ["packages will change"]
    stale: Running = {**STOPPED, "status": "online", "stale": True, "shadowed": []}
    assert reasons(stale, [".env will change"]) == ["it is older than its files", ".env will change"]


def secrets(**kinds: str) -> Secrets:
    keys = {key: Key(kind=kinds.get(key, "set"), equal=False, times=1, before="") for key in KEYS}
    return {"sha256": None, "keys": keys, "public": []}


def test_a_value_that_the_ecosystem_file_sets_is_refused_in_the_plan() -> None:
    now: Running = {**CONVERGED, "fixed": [JWT_SECRET]}
    check(now, secrets(), {APP_ID: "18289"}, "api")
    with pytest.raises(BadInput, match="the ecosystem file sets JWT_SECRET for api, so the value"):
        check(now, secrets(**{JWT_SECRET: "weak"}), {}, "api")


@pytest.mark.parametrize("kind", ["absent", "empty", "placeholder", "weak"])
def test_a_value_that_pm2_alone_has_is_not_thrown_away(kind: str) -> None:
    now: Running = {**CONVERGED, "held": [APP_ID, JWT_SECRET], "held_in": "/proc/1/environ"}
    check(now, secrets(), {}, "api")
    check(now, secrets(**{JWT_SECRET: kind}), {JWT_SECRET: "the operator's own secret, long enough"}, "api")
    check({**now, "held": [APP_ID]}, secrets(**{JWT_SECRET: kind}), {}, "api")
    with pytest.raises(BadInput, match=r"api has JWT_SECRET from pm2 alone; .* as it is in /proc/1/environ"):
        check(now, secrets(**{JWT_SECRET: kind}), {}, "api")


def test_one_that_runs_elsewhere_is_refused() -> None:
    """It never reads what is written."""
    with pytest.raises(BadInput, match=r"api runs in /srv/copy, and reads \.env there: correct app_dir, or start it"):
        check({**CONVERGED, "folder": "/srv/copy"}, secrets(), {}, "api")
