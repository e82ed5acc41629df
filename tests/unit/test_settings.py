from __future__ import annotations

import runpy
from dataclasses import fields
from typing import Any

import pytest

from settings import BadInput, Settings
from tests.unit.conftest import ROOT

DEFAULTS = {
    key: value for key, value in runpy.run_path(str(ROOT / "group_data/all.py")).items() if not key.startswith("_")
}

BAD: dict[str, list[Any]] = {
    "app_dir": ["", "opt/ai-admin", "/opt/ai admin", "/opt/$(id)", "/opt/a\n", "/", None],
    "api_app": ["", "-x", "a b", "a;b", "a\n", 3],
    "api_port": [0, 65536, -1, "3000", 3000.0, True, None],
    "app_source": [
        *("ai-admin", "--upload-pack=x", "ext::sh -c x", "http://a.example/x", "https://a.example", "/a\nb", None),
        *("https://user@a.example/x", "ssh://git:word@a.example/x", "ssh://-oProxyCommand=x/y", "git@-oProxyCommand:y"),
    ],
    "domain": ["", "-a.example", "a b", "a;", "https://a.example", None],
    "nginx_site": ["", "../nginx.conf", "a/b", ".hidden", "-x"],
    "packages": [[], "socket.io", {"Socket IO": "1"}, {"a": ""}, {"a": " "}, {"a": 1}, {"--flag": "1"}, {3: "1"}],
    "health_check": ["true", "", 1, 0, None],
    "change_proxy_pass": ["true", "", 1, 0, None],
    "start_timeout": [0, 601, "30", 1.5, True],
    "settle_time": [-1, 121, "5", None],
    "lock_wait": [-1, 3601, "0"],
    "lock_timeout": [0, 61, "3"],
    "statement_timeout": [0, 3601, "60"],
    "database_ca": ["ca.pem", "/a b", "/a\n", None],
    "verify": ["yes", 1, None],
    "plan": ["p12", "0123456789abcdef0", None],
    "undo": ["last", "20261231", "20261231T235959Z/..", None],
    "yclients_api": ["", "http://api.example", "https://api.example/", "api.example", "https://user@api.example", None],
    "outbound": ["a.example:443", ["a.example"], ["a.example:https"], ["https://a.example:443"], [443], None],
    "verify_address": ["a.example", "1.2.3.4 ", "$(id)", None],
    "verify_ca": ["ca.pem", "/a b", None],
}


def test_defaults_are_valid() -> None:
    settings = Settings.load(DEFAULTS)
    assert {field.name: getattr(settings, field.name) for field in fields(settings)} == DEFAULTS


def test_every_setting_has_bad_values_here() -> None:
    assert set(BAD) == set(DEFAULTS)


@pytest.mark.parametrize(
    ("setting", "value"), [(setting, value) for setting, values in BAD.items() for value in values]
)
def test_bad_value_is_refused_in_one_line_that_names_the_setting(setting: str, value: Any) -> None:
    with pytest.raises(BadInput) as refused:
        Settings.load({**DEFAULTS, setting: value})
    message = str(refused.value)
    assert message.startswith(f"settings: {setting} must be ")
    assert "\n" not in message


@pytest.mark.parametrize(
    "source",
    [
        *(
            "",
            "/srv/ai admin",
            "./app",
            "../app",
            "~/app",
            "git@a.example:me/app.git",
            "https://a.example:8443/me/app.git",
        ),
        *("ssh://git@a.example:22/me/app.git", "ssh://a.example/~me/app", "file:///srv/app.git"),
    ],
)
def test_a_source_of_the_application(source: str) -> None:
    assert Settings.load({**DEFAULTS, "app_source": source}).app_source == source


def test_a_token_in_a_url_is_not_shown() -> None:
    with pytest.raises(BadInput) as refused:
        Settings.load({**DEFAULTS, "app_source": "https://me:s3cret@a.example/app.git"})
    assert "s3cret" not in str(refused.value)
    assert "'https://…@a.example/app.git'" in str(refused.value)


def test_unknown_setting() -> None:
    with pytest.raises(BadInput, match=r"^settings: there is no setting 'api_prot'; the settings are: app_dir, "):
        Settings.load({**DEFAULTS, "api_prot": 3000})


@pytest.mark.parametrize("setting", BAD)
def test_missing_setting(setting: str) -> None:
    with pytest.raises(BadInput, match=rf"^settings: '{setting}' is missing; group_data/all\.py has its default$"):
        Settings.load({key: value for key, value in DEFAULTS.items() if key != setting})


def test_pyinfras_own_data_is_passed_over() -> None:
    assert Settings.load({**DEFAULTS, "ssh_user": "root", "_sudo": True}) == Settings.load(DEFAULTS)
