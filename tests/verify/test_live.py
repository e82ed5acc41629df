"""The checks that talk to others than the host; collected with --live only."""

from __future__ import annotations

from pathlib import Path

import credentials
from tests.verify.conftest import Pending, component
from tests.verify.live import Answer, ask
from tests.verify.target import Target


@component("partner_token", "compare the token with the one YClients sent you; the Internet there? then try again")
def test_yclients_accepts_the_partner_token(target: Target, seen: object) -> None:
    assert callable(seen)
    token = credentials.of_operator().keys.get(credentials.PARTNER_TOKEN)
    if token is None:
        raise Pending(f"--live tries your own {credentials.PARTNER_TOKEN}, and {Path.cwd()}/.env has none")
    answer, words = ask(target.settings.yclients_api, token)
    assert answer is Answer.ACCEPTED, words
    seen(words)
