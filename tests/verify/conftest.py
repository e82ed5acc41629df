"""What the checks are given, besides testinfra's `host`: each is read from the host once, and kept.

As in any testinfra project: `pytest --hosts=ssh://root@HOST tests/verify`; or with the connection of a pyinfra
inventory: `pytest --hosts=pyinfra://NAME --inventory=inventory.py tests/verify`. bin/verify makes the table of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import Any

import pytest
from testinfra.host import Host

from tests.verify.backend import Backend, warm
from tests.verify.plugin import PACKAGES, Seen, component
from tests.verify.target import FromInventory, Target

PACKAGE_ROWS = {"socket.io": "websocket", "jsonwebtoken": "jwt_secret", "@whiskeysockets/baileys": "baileys"}
# by Target's names
GIVEN = ("settings", "pm2", "answers", "dotenv", "pool", "contract", "outside", "surroundings", "passed")
HOSTS_AT_ONCE = 4


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--inventory", default="inventory.py", help="pyinfra's, for --hosts=pyinfra://NAME")


def pytest_configure(config: pytest.Config) -> None:
    FromInventory.register(config.getoption("--inventory"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    named = PACKAGES in metafunc.config.stash or metafunc.config.getoption("--hosts", None)
    if not named:
        raise pytest.UsageError("tests/verify needs a host: --hosts=pyinfra://NAME, or bin/verify")
    if "package" in metafunc.fixturenames:
        packages = metafunc.config.stash.get(PACKAGES, list(PACKAGE_ROWS))
        rows = {name: component(PACKAGE_ROWS.get(name, "endpoints")) for name in packages}
        metafunc.parametrize("package", [pytest.param(name, marks=row, id=name) for name, row in rows.items()])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Every check of a host at once, each in a thread: then the host has been asked all there is to ask, and pytest
    makes them again, one by one, from the answers."""
    items = [item for item in session.items if isinstance(item, pytest.Function) and item.path.name.startswith("test_")]
    hosts = [list(each) for _, each in groupby(sorted(items, key=lambda item: id(_host(item))), key=_host)]
    with ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
        for each in hosts:
            if isinstance(_host(each[0]).backend, Backend):
                pool.submit(warm, [partial(_make, item) for item in each])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A connection that stays open would keep Python from ending. (bin/verify ends by itself.)"""
    if PACKAGES in session.config.stash:
        return
    items = [each for each in getattr(session, "items", []) if isinstance(each, pytest.Function)]
    for backend in {_host(item).backend for item in items if hasattr(item, "callspec")}:
        if isinstance(backend, Backend):
            backend.close()


def _host(item: pytest.Function) -> Host:
    parameters = item.callspec.params
    return parameters.get("host") or parameters["_testinfra_host"]


def _make(item: pytest.Function) -> None:
    target = Target.of(_host(item))
    known = {**item.callspec.params, "host": target.host, "target": target, "seen": lambda _: None}
    names = inspect.signature(item.obj).parameters
    item.obj(**{name: known[name] if name in known else getattr(target, name) for name in names})


@pytest.fixture
def target(host: Host) -> Target:
    return Target.of(host)


def given(name: str) -> Callable[[Target], Any]:
    @pytest.fixture(name=name)
    def fixture(target: Target) -> Any:
        return getattr(target, name)

    return fixture


settings, pm2, answers, dotenv, pool, contract, outside, surroundings, passed = map(given, GIVEN)


@pytest.fixture
def seen(record_property: Callable[[str, object], None]) -> Seen:
    """Record what was seen: the evidence of a check that passes."""
    return lambda text: record_property("seen", text)
