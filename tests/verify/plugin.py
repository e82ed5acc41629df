"""pytest's part: gives the checks what was read, and makes their results into the tables."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest

from tests.verify.table import Status, Table
from tests.verify.target import NotChecked, Reading, Target

DEPLOY = "pyinfra inventory.py deploy.py"
Seen = Callable[[str], None]


def component(name: str, action: str = DEPLOY) -> pytest.MarkDecorator:
    """Which row of the table a check belongs to, and what to type when it fails."""
    return pytest.mark.component(name, action=action)


class Pending(Exception):
    """Not broken: waits for something that the operator does not have yet."""


def needs(true: bool, why: str) -> None:
    """What a check builds on. Where that is broken, its own check says so, and this one cannot judge."""
    if not true:
        raise NotChecked(why)


class Verification:
    """The plugin. `targets` are being read already; `salon` is for --live-qr."""

    def __init__(self, targets: list[Target], salon: int | None = None) -> None:
        self.targets = targets
        self.salon = salon
        self.tables = {target.name: Table(target.name) for target in targets}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        metafunc.parametrize("target", self.targets, ids=[target.name for target in self.targets], scope="session")

    @pytest.fixture(autouse=True)
    def target(self, request: pytest.FixtureRequest) -> Target:
        target: Target = request.param
        return target

    @pytest.fixture
    def probe(self, target: Target) -> Reading:
        return target.probe

    @pytest.fixture
    def outside(self, target: Target) -> Reading:
        return target.outside

    @pytest.fixture
    def salon_id(self) -> int | None:
        return self.salon

    @pytest.fixture
    def seen(self, record_property: Callable[[str, object], None]) -> Seen:
        """Tell what was seen: the evidence of a check that passes."""
        return lambda text: record_property("seen", text)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Function, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        # the message alone: a traceback would say nothing to an operator, and takes 0.1 s to make
        item.repr_failure = _message  # type: ignore[method-assign]
        report = yield
        if call.when == "call" or call.excinfo:
            marker = item.get_closest_marker("component")
            assert marker is not None, f"{item.name} belongs to no component"
            target = item.callspec.params["target"]
            assert isinstance(target, Target)
            host = target.name
            name = item.name.replace(f"{host}-", "").replace(f"[{host}]", "").removeprefix("test_")
            verdict = _verdict(report, call, marker.kwargs["action"])
            self.tables[host].rows[marker.args[0]].add(*verdict, name=name)
        return report


def _message(excinfo: pytest.ExceptionInfo[BaseException]) -> str:
    return str(excinfo.value)


def _verdict(report: pytest.TestReport, call: pytest.CallInfo[None], action: str) -> tuple[Status, str, str]:
    if call.excinfo is None:
        return Status.READY, str(dict(report.user_properties).get("seen", "")), ""
    error = call.excinfo.value
    if isinstance(error, Pending):
        return Status.PENDING, str(error), action
    if isinstance(error, NotChecked):
        return Status.UNCHECKED, str(error), ""
    if isinstance(error, AssertionError):
        return Status.FAILING, str(error), action
    return Status.FAILING, f"this check itself broke: {type(error).__name__}: {error}", "report it"
