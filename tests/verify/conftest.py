"""Makes pytest's results into the table. Run by bin/verify; a bare `pytest` does not come here (pyproject.toml)."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.verify.table import Status, Table
from tests.verify.target import Target, targets

DEPLOY = "pyinfra inventory.py deploy.py"


def component(name: str, action: str = DEPLOY) -> pytest.MarkDecorator:
    """Which row of the table a check belongs to, and what to do when it fails."""
    return pytest.mark.component(name, action=action)


class Pending(Exception):
    """Not broken: waits for something that the operator does not have yet."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--inventory", help="the deploy's inventory file")
    parser.addoption("--limit", help="only this host of it")
    parser.addoption("--live", action="store_true", help="also ask YClients about the partner token")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.name == "test_live.py" and not config.getoption("--live") else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" not in metafunc.fixturenames:
        return
    inventory = metafunc.config.getoption("--inventory")
    limit = metafunc.config.getoption("--limit")
    if inventory is None:
        raise pytest.UsageError("verification runs by bin/verify, which names the inventory")
    found = [target for target in _targets(inventory) if limit in (None, target.name)]
    if not found:
        raise pytest.UsageError(f"{inventory} has no host {limit}")
    metafunc.parametrize("target", found, ids=lambda target: target.name, scope="session")


_known: dict[str, list[Target]] = {}


def _targets(inventory: str) -> list[Target]:
    """The same objects for every test: each holds its connection and its probe."""
    if inventory not in _known:
        _known[inventory] = targets(Path(inventory))
    return _known[inventory]


@pytest.fixture
def probe(target: Target) -> dict[str, str]:
    return target.probe


@pytest.fixture
def seen(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Tell what was seen: the evidence of a check that passes."""
    return lambda text: record_property("seen", text)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" or call.excinfo:
        marker = item.get_closest_marker("component")
        target = item.callspec.params["target"] if isinstance(item, pytest.Function) else None
        if marker is not None and isinstance(target, Target):
            table = item.config.stash.setdefault(TABLES, {}).setdefault(target.name, Table(target.name))
            table.rows[marker.args[0]].add(*_verdict(report, call, marker.kwargs.get("action", "")))
    return report


TABLES = pytest.StashKey[dict[str, Table]]()


def _verdict(report: pytest.TestReport, call: pytest.CallInfo[None], action: str) -> tuple[Status, str, str]:
    if call.excinfo is None:
        return Status.READY, str(dict(report.user_properties).get("seen", "")), ""
    error = call.excinfo.value
    if isinstance(error, Pending):
        return Status.PENDING, str(error), action
    if isinstance(error, AssertionError):
        return Status.FAILING, str(error).split("\nassert")[0].strip(), action
    return Status.UNCHECKED, f"{type(error).__name__}: {error}", action
