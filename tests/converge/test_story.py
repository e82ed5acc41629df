"""The main job: deploy without tokens, again, with tokens, again; and all that has changed on the host by then."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.converge.conftest import APP, BACKUPS, STATE, Verified, differing, tree, verify
from tests.rehearsal.host import Host
from tests.rehearsal.story import EVERYTHING, ROOT, Deployed, deploy, tokens

BOTH = ["YCLIENTS_APP_ID", "YCLIENTS_PARTNER_TOKEN"]

# All that differs below /etc and /opt/ai-admin when everything is deployed.
CHANGED = {
    "/etc/nginx/sites-available/ai-admin.app",
    "/etc/nginx/sites-enabled/ai-admin.app",  # was a copy, is a link
    f"{APP}/.env",
    f"{APP}/node_modules/socket.io/**",
    f"{APP}/src/api/routes/yclients-marketplace.js",
    f"{APP}/src/integrations/whatsapp/session-pool.js",
}


@dataclass(frozen=True)
class Story:
    """The host's files before and after, and each run."""

    before: dict[str, str]
    after_plan: dict[str, str]
    after: dict[str, str]
    plan: Deployed
    bare: Deployed
    bare_again: Deployed
    tokens: Deployed
    tokens_again: Deployed
    verified_bare: Verified
    verified: Verified


@pytest.fixture(scope="module")
def story(host: Host) -> Story:
    have = tokens()
    before = tree(host, "/etc", APP, STATE, BACKUPS)
    plan = deploy(host, "--dry")
    after_plan = tree(host, "/etc", APP, STATE, BACKUPS)
    bare = deploy(host, "--data", "settle_time=2")
    verified_bare = verify(host)
    bare_again = deploy(host)
    came = deploy(host, "--data", "settle_time=2", environment=have)
    again = deploy(host, environment=have)
    verified = verify(host)
    after = tree(host, "/etc", APP, STATE, BACKUPS)
    return Story(before, after_plan, after, plan, bare, bare_again, came, again, verified_bare, verified)


@pytest.mark.slow
def test_the_plan_names_every_change(story: Story) -> None:
    assert story.plan.code == 0, story.plan.output
    assert story.plan.changed == EVERYTHING
    assert story.plan.pending == BOTH


def test_the_plan_changes_nothing(story: Story) -> None:
    assert differing(story.before, story.after_plan) == set()


def test_without_tokens_everything_else_changes(story: Story) -> None:
    assert (story.bare.code, story.bare.changed) == (0, EVERYTHING), story.bare.output
    assert story.bare.pending == BOTH


def test_again_nothing_changes(story: Story) -> None:
    assert (story.bare_again.code, story.bare_again.changed) == (0, []), story.bare_again.output
    assert story.bare_again.pending == BOTH


def test_tokens_change_dotenv_and_restart_the_api(story: Story) -> None:
    assert (story.tokens.code, story.tokens.changed) == (0, ["Secrets in .env", "API restart"]), story.tokens.output
    assert story.tokens.pending == []


def test_with_tokens_again_nothing_changes(story: Story) -> None:
    assert (story.tokens_again.code, story.tokens_again.changed) == (0, []), story.tokens_again.output


def test_verification_without_tokens_is_pending(story: Story) -> None:
    pending = {name for name, status in story.verified_bare.rows.items() if status != "ready"}
    assert (story.verified_bare.code, pending) == (2, {"Partner Token", "Application ID"}), story.verified_bare.output


def test_verification_with_tokens_is_ten_of_ten(story: Story) -> None:
    assert story.verified.code == 0, story.verified.output
    assert list(story.verified.rows.values()) == ["ready"] * 10


def test_verification_runs_every_check(story: Story) -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests/verify").glob("test_*.py")]
    checks = re.findall(r"^def (test_\w+)", "".join(sources), re.MULTILINE)
    assert checks
    for verified in (story.verified_bare, story.verified):
        assert set(verified.ran) == set(checks)
        assert verified.checks == len(verified.ran)


def _written_by_the_app(path: str) -> bool:
    """pm2 and the app's own logger write logs; the session pool makes its folder when first used."""
    return path.startswith((f"{APP}/logs/", f"{APP}/baileys_sessions"))


def test_the_expected_files_alone_differ(story: Story) -> None:
    changed = {
        path
        for path in differing(story.before, story.after)
        if path.startswith(("/etc/", APP)) and not _written_by_the_app(path)
    }
    assert {re.sub(r"(/node_modules/socket\.io)(/.*)?$", r"\1/**", path) for path in changed} == CHANGED


def test_changed_files_keep_mode_and_owner(story: Story) -> None:
    """All but the enabled site: it becomes a link, and a link has none."""
    kept = [path for path in CHANGED if path in story.before and "sites-enabled" not in path]
    assert len(kept) == 4
    for path in kept:
        assert story.before[path].split()[:2] == story.after[path].split()[:2], path


def test_nothing_of_ours_is_left_lying_about(host: Host, story: Story) -> None:
    del story  # it has run
    names = "-name '*.ai-admin-deploy-new' -o -name '.ai-admin-deploy-npm' -o -name 'pyinfra-*'"
    assert host.ssh(f"find / -xdev \\( {names} \\)").stdout == ""


def test_our_own_files_are_private(story: Story) -> None:
    """A backup has the mode of its file, in a folder that nobody else may enter."""
    own = {path: what.split()[0] for path, what in story.after.items() if path.startswith((STATE, BACKUPS))}
    assert {path for path in own if path.endswith("/.env")}, "the old .env was not kept"
    assert {mode for mode in own.values() if mode.startswith("d")} == {"drwx------"}
    ours = {mode for path, mode in own.items() if not path.startswith(BACKUPS) or path.endswith("manifest.json")}
    assert ours <= {"-rw-------", "drwx------"}
