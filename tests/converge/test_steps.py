"""Each step of deploy.py is needed: without its line all the rest is deployed, and verification shows what is not."""

from __future__ import annotations

import pytest

from tests.converge.conftest import verify, without
from tests.rehearsal.host import Host
from tests.rehearsal.story import EVERYTHING, deploy, tokens

# The step that is left out -> the components that are then not ready.
NOT_READY = {
    # The API is not restarted, as it would not come up; what the run had written for it is put back as it was.
    "npm packages": {
        "Endpoints": "failing",
        "HTML page": "not checked",
        "WebSocket server": "failing",
        "Partner Token": "pending",
        "Application ID": "pending",
        "JWT Secret": "failing",
        "Nginx WebSocket": "not checked",
        "Baileys integration": "failing",
    },
    "Database migration": {"Database": "failing"},
    "Secrets in .env": {"Partner Token": "pending", "Application ID": "pending", "JWT Secret": "failing"},
    # Without the health check nobody knows which secrets the running API has.
    "Application source": {
        "Endpoints": "failing",
        "Partner Token": "not checked",
        "Application ID": "not checked",
        "JWT Secret": "not checked",
        "Baileys integration": "failing",
    },
    "nginx site": {"Nginx WebSocket": "failing"},
    "nginx reload": {"Nginx WebSocket": "failing"},
    "API restart": {
        "Endpoints": "failing",
        "Partner Token": "not checked",
        "Application ID": "not checked",
        "JWT Secret": "not checked",
    },
}


def test_every_step_is_tried() -> None:
    assert list(NOT_READY) == EVERYTHING


@pytest.mark.slow
@pytest.mark.parametrize("step", EVERYTHING)
def test_without_the_step(conv: Host, step: str) -> None:
    conv.reset()
    done = deploy(conv, "--data", "settle_time=2", environment=tokens(), runbook=without(step))
    verified = verify(conv)
    broken = {name: status for name, status in verified.rows.items() if status != "ready"}
    assert (verified.code, broken) == (1, NOT_READY[step]), verified.output
    if step == "npm packages":  # the run says so, and why
        assert done.code == 1
        assert "ai-admin-api was not restarted, because it would not come up: socket.io does not load" in done.output
    else:
        assert done.code == 0, done.output
        needless = {step, "nginx reload"} if step == "nginx site" else {step}
        assert done.changed == [each for each in EVERYTHING if each not in needless]
