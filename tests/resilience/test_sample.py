"""A sample of bin/faults, and proof that it notices: two bundles broken on purpose are caught by it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.rehearsal.host import Host
from tests.rehearsal.story import ROOT, tokens
from tests.resilience.__main__ import run, try_fault
from tests.resilience.conftest import Mutate
from tests.resilience.faults import STEPS, Fault, every, killed
from tests.resilience.world import World

pytestmark = pytest.mark.slow

SAMPLE = (
    *(f"token deploy, step {step}: {kind}" for step, kind in ((2, "before"), (2, "cut"), (4, "after"), (4, "sshd"))),
    "first deploy, step 8: cut",
    "first deploy, step 14: before",
    "first deploy, power cut after step 6",
    "first deploy, disk full on /etc",
    "first deploy, npm killed",
    "first deploy, companies locked for 5 minutes",
    "token deploy, disk full on /opt",
    "token deploy, the app crashes on the new token",
    "token deploy, clock set back an hour",
    "token deploy, two at once",
)


def test_the_sample_survives_and_heals(tmp_path: Path) -> None:
    faults = [fault for fault in every() if fault.name in SAMPLE]
    assert len(faults) == len(SAMPLE), "a fault of the sample was renamed"
    outcomes = run(faults, ("fault2", "fault3"), tmp_path / "book.jsonl")
    assert [outcome for outcome in outcomes if outcome.survived or outcome.healed] == []
    assert len(outcomes) == len(SAMPLE)


def test_every_remote_step_is_struck(converged: Host) -> None:
    """The harness counts on the number of steps; a new one must be struck too."""
    done = World(converged).faulty("count", 0, tokens())
    assert f"steps: {STEPS['token']}\n" in done.output
    converged.reset()
    done = World(converged).faulty("count", 0, {})
    assert f"steps: {STEPS['first']}\n" in done.output


def test_a_restart_on_events_is_caught(converged: Host, mutate: Mutate) -> None:
    """pyinfra's own idiom, `_if=did_change`: killed between the write and the restart, it never restarts.

    Where the host does not put back what nothing has loaded: that would save this bundle too.
    """
    bundle = mutate(
        "deploy.py",
        'pm2.current(name="API restart",',
        'pm2.current(name="API restart", _if=written.did_change,',
    )
    text = (bundle / "deploy.py").read_text()
    (bundle / "deploy.py").write_text(text.replace("dotenv.secrets(", "written = dotenv.secrets("))
    (bundle / "remote").unlink()
    shutil.copytree(ROOT / "remote", bundle / "remote")
    session = (bundle / "remote/session.py").read_text()
    puts_back = "_give_up(deploy, time.monotonic() - locked)"
    assert puts_back in session
    (bundle / "remote/session.py").write_text(session.replace(puts_back, "{}"))
    assert World(converged).deploy({}).code == 0
    outcome = try_fault(killed("token", "after", 2), World(converged, bundle))
    assert any("the running API says" in problem for problem in outcome.healed), outcome
    assert World(converged).deploy({}).changed == ["API restart"], "the sound bundle heals even this"


def test_a_failed_write_that_empties_the_file_is_caught(converged: Host, mutate: Mutate) -> None:
    bundle = mutate(
        "remote/files.py",
        "        with suppress(OSError):  # a read-only file system\n",
        "        open(path, 'wb').close()\n        with suppress(OSError):\n",
    )
    full = next(fault for fault in every() if fault.name == "token deploy, disk full on /opt")
    only_survive = Fault(full.name, full.scenario, full.strike, full.fix)
    world = World(converged, bundle)
    world.host.ssh("sh -eu", input="cp -p /opt/ai-admin/.env /root/env.kept")
    outcome = try_fault(only_survive, world)
    assert any(".env" in problem for problem in outcome.survived), outcome
