"""bin/verify --live: asks YClients itself about the partner token."""

from __future__ import annotations

from pathlib import Path

import credentials
from tests.verify.live import Answer, ask
from tests.verify.plugin import Pending, Seen, component
from tests.verify.target import Target


@component("partner_token", "compare the token with the one YClients sent you; the Internet there? then try again")
def test_yclients_accepts_the_partner_token(target: Target, seen: Seen) -> None:
    token = credentials.of_operator().keys.get(credentials.PARTNER_TOKEN)
    if token is None:
        raise Pending(f"--live tries your own {credentials.PARTNER_TOKEN}, and {Path.cwd()}/.env has none")
    answer, words = ask(target.settings.yclients_api, token)
    assert answer is Answer.ACCEPTED, words
    seen(words)
