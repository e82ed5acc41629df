"""The pytest plugin: passes the readings to the checks, and collects their results in the tables."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest

from tests.verify.table import Status, Table
from tests.verify.target import NotChecked, Reading, Target

DEPLOY = "pyinfra inventory.py deploy.py"
PACKAGE_ROWS = {"socket.io": "websocket", "jsonwebtoken": "jwt_secret", "@whiskeysockets/baileys": "baileys"}
Seen = Callable[[str], None]


def component(name: str, action: str = DEPLOY) -> pytest.MarkDecorator:
    """Which row of the table a check belongs to, and what to type when it fails: see `_filled`."""
    return pytest.mark.component(name, action=action)


class Pending(Exception):
    """Not broken: something that the operator does not have yet is missing."""


class Unfit(AssertionError):
    """A check that fails, with a remedy of its own."""

    def __init__(self, cause: str, action: str) -> None:
        super().__init__(cause)
        self.action = action


def needs(true: bool, why: str) -> None:
    """A precondition of a check. Where it does not hold, another check fails for it, and this one cannot judge."""
    if not true:
        raise NotChecked(why)


class Verification:
    """`targets` are being read already; `salon` is for --live-qr."""

    def __init__(self, targets: list[Target], salon: int | None = None) -> None:
        self.targets = targets
        self.salon = salon
        self.tables = {target.name: Table(target.name) for target in targets}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "package" in metafunc.fixturenames:
            cases = [_package_case(target, name) for target in self.targets for name in target.settings.packages]
            metafunc.parametrize(("target", "package"), cases, scope="session")
            return
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
        """Record what was seen: the evidence of a check that passes."""
        return lambda text: record_property("seen", text)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Function, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        # the message only: an operator has no use for a traceback, and all of them take 0.1 s
        item.repr_failure = _message  # type: ignore[method-assign]
        report = yield
        if call.when == "call" or call.excinfo:
            marker = item.get_closest_marker("component")
            assert marker is not None, f"{item.name} belongs to no component"
            target = item.callspec.params["target"]
            if not isinstance(target, Target):
                return report  # pytest's placeholder for a check without cases: no host has packages to check
            host = target.name
            name = item.name.replace(f"{host}-", "").replace(f"[{host}]", "").removeprefix("test_")
            verdict = _verdict(report, call, _filled(marker.kwargs["action"], target.probe))
            self.tables[host].rows[marker.args[0]].add(*verdict, name=name)
        return report


def _package_case(target: Target, package: str) -> object:
    row = component(PACKAGE_ROWS.get(package, "endpoints"))
    return pytest.param(target, package, marks=row, id=f"{target.name}-{package}")


def _filled(action: str, probe: Reading) -> str:
    """With what the host has for `{pm2}`, typed by whoever runs it, `{user}` and `{home}` of that, and `{other}`."""
    user, home = [*probe.get("pm2.user", "").split(), "root", "/root"][:2]
    pm2 = "pm2" if user == "root" else f"(as {user}) pm2"
    for name, value in {"pm2": pm2, "user": user, "home": home, "other": probe.get("pm2.other", "")}.items():
        action = action.replace(f"{{{name}}}", value)
    return action


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
        return Status.FAILING, str(error), getattr(error, "action", action)
    return Status.FAILING, f"this check itself failed: {type(error).__name__}: {error}", "report this bug"
