"""bin/verify --live: asks YClients itself whether it accepts the partner token."""

from __future__ import annotations

from pathlib import Path

import credentials
from rules import PARTNER_TOKEN
from settings import Settings
from tests.verify.live import Answer, ask
from tests.verify.plugin import Pending, Seen, component


@component("partner_token", "compare the token with the one YClients sent you; check your Internet connection")
def test_yclients_accepts_the_partner_token(settings: Settings, seen: Seen) -> None:
    token = credentials.of_operator().keys.get(PARTNER_TOKEN)
    if token is None:
        places = f"environment, YCLIENTS_SECRETS_COMMAND, {Path.cwd()}/.env"
        raise Pending(f"--live checks your own {PARTNER_TOKEN}, which is not set ({places})")
    answer, evidence = ask(settings.yclients_api, token)
    assert answer is Answer.ACCEPTED, evidence
    seen(evidence)
