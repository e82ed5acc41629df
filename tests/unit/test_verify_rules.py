"""Deploy and verification look for the same things: what rules.py and the settings say, and nothing of their own."""

from __future__ import annotations

import json
import runpy
import subprocess

import pytest

import rules
from settings import Settings
from tests.rehearsal.story import ROOT
from tests.verify.target import HERE, Target

KNOBS = {
    key: value for key, value in runpy.run_path(str(ROOT / "group_data/all.py")).items() if not key.startswith("_")
}
PROGRAMS = ("probe.sh", "probe.js", "pool.js")

VALUES = [
    ("ваш_токен", True),
    ("ВАШ_PARTNER_TOKEN", True),
    (" сгенерируйте_случайную_строку_32_символа ", True),
    ("ChangeMe", True),
    ("change-me", True),
    ("change me", False),
    ("xxxx", False),
    ("a-todo", False),
    ("", False),
]


@pytest.mark.parametrize(("value", "is_placeholder"), VALUES)
def test_a_placeholder_is_one_to_both(value: str, is_placeholder: bool) -> None:
    assert rules.is_placeholder(value) == is_placeholder
    assert "new RegExp(rules.placeholder, 'iu')" in (HERE / "probe.js").read_text(encoding="utf-8")
    program = "const [p, v] = JSON.parse(process.argv[1]); console.log(new RegExp(p, 'iu').test(v.trim()))"
    done = subprocess.run(
        ["node", "-e", program, json.dumps([rules.PLACEHOLDER, value])], capture_output=True, text=True
    )
    assert json.loads(done.stdout) == is_placeholder


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_have_no_copies(program: str) -> None:
    text = (HERE / program).read_text(encoding="utf-8")
    own = [
        *rules.KEYS,
        *rules.PUBLIC_DEFAULTS,
        *rules.COLUMNS,
        rules.HEALTH_CHECK,
        rules.SESSION_POOL,
        rules.POOL_CLASS,
    ]
    assert [each for each in [*own, *KNOBS["packages"]] if f"'{each}'" in text or f"/{each}`" in text] == []


def test_the_rules_arrive() -> None:
    """Through the shell's quoting, to a program of Node."""
    settings = Settings.load({**KNOBS, "packages": {"ws": "^8", "@scope/name": "^1"}})
    script = Target("here", settings, "", ["sh"], "").script("pytest.ini").partition("[pytest]")[0]
    program = 'node -e "console.log(process.env.RULES, process.env.WANTED_COLUMNS)"'
    done = subprocess.run(["sh", "-s"], input=script + program, capture_output=True, text=True)
    arrived, end = json.JSONDecoder().raw_decode(done.stdout)
    assert arrived["packages"] == ["ws", "@scope/name"]
    assert arrived["placeholder"] == rules.PLACEHOLDER
    assert (arrived["keys"], arrived["methods"]) == (list(rules.KEYS), list(rules.METHODS))
    assert done.stdout[end:].split() == list(rules.COLUMNS)
