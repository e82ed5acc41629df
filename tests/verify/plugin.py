"""The pytest plugin of bin/verify: collects the results of the checks in the tables."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator

import pytest
from testinfra.host import Host

from tests.verify.backend import Lost
from tests.verify.table import DEPLOY, Status, Table
from tests.verify.target import NotChecked, Target, first_on_path, needs

__all__ = ["DEPLOY", "Pending", "Seen", "Unfit", "component", "needs"]
PACKAGES = pytest.StashKey[list[str]]()  # of the settings of all hosts
Seen = Callable[[str], None]


LOOK = "the application's maintainers must find out what differs there"
PASS_ON = "see which location of the nginx site takes this path; it must pass it to the API unchanged"


def component(name: str, action: str = DEPLOY, otherwise: str = LOOK) -> pytest.MarkDecorator:
    """Which row of the table a check belongs to, and what to type when it fails, or is to be done where deploy would
    change nothing: see `_filled`."""
    return pytest.mark.component(name, action=action, otherwise=otherwise)


class Pending(Exception):
    """Not broken: something that the operator does not have yet is missing."""


class Unfit(AssertionError):
    """A check that fails, with a remedy of its own."""

    def __init__(self, cause: str, action: str) -> None:
        super().__init__(cause)
        self.action = action


class Verification:
    """`targets` are being connected to already; `inventory` is as it was typed; `salon` is for --live-qr."""

    def __init__(self, targets: list[Target], inventory: str, salon: int | None = None, limited: bool = False) -> None:
        self.targets = targets
        self.salon = salon
        deploy = f"pyinfra {shlex.quote(inventory)} deploy.py"
        limits = {
            target.name: f" --limit {shlex.quote(target.name)}" if limited or len(targets) > 1 else ""
            for target in targets
        }
        self.tables = {name: Table(name, deploy + limit) for name, limit in limits.items()}

    def pytest_configure(self, config: pytest.Config) -> None:
        packages = [name for target in self.targets for name in target.settings.packages]
        config.stash[PACKAGES] = list(dict.fromkeys(packages))

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        hosts, names = [target.host for target in self.targets], [target.name for target in self.targets]
        metafunc.parametrize("host", hosts, ids=names, scope="session", indirect=True)

    @pytest.fixture(scope="session", autouse=True)
    def host(self, request: pytest.FixtureRequest) -> Host:
        return request.param

    @pytest.fixture
    def salon_id(self) -> int | None:
        return self.salon

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Function, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        # the message only: an operator has no use for a traceback, and all of them take 0.1 s
        for how in ("repr_failure", "_repr_failure_py"):  # of a check, and of what it is given
            setattr(item, how, _message)
        report = yield
        if call.when == "call" or call.excinfo:
            marker = item.get_closest_marker("component")
            assert marker is not None, f"{item.name} belongs to no component"
            target = Target.of(item.callspec.params["host"])
            cases = [str(value) for key, value in item.callspec.params.items() if key != "host"]
            name = item.originalname.removeprefix("test_") + (f"[{'-'.join(cases)}]" if cases else "")
            verdict = _verdict(report, call, marker.kwargs["action"], target)
            status, evidence, action = verdict
            table = self.tables[target.name]
            otherwise = _filled(marker.kwargs["otherwise"], target) if status is Status.FAILING else ""
            for script in ("deploy.py", "rollback.py", "bootstrap.py"):
                own = table.deploy.replace("deploy.py", script)
                action = action.replace(DEPLOY.replace("deploy.py", script), own)
            table.rows[marker.args[0]].add(status, evidence, action, name, otherwise)
        return report


def _filled(action: str, target: Target) -> str:
    """With what the host has for `{pm2}`, as root types it, `{user}` who runs it and the `{home}` of that, and
    `{other_pm2}`; and with the settings' `{app}`, `{app_dir}`, `{port}` and `{domain}`."""
    if "{" not in action:
        return action
    try:
        pm2 = target.pm2
        user, home, others, path = pm2.user, pm2.home_of_user, pm2.others, first_on_path(pm2.own_node)
    except (NotChecked, Lost):
        user, home, others, path = "root", "/root", [], ""
    found = {"pm2": _pm2_of(user, path), "user": user, "home": home}
    found["other_pm2"] = _pm2_of(others[0], path) if others else ""
    settings = target.settings
    found |= {
        "app": settings.api_app,
        "app_dir": settings.app_dir,
        "port": str(settings.api_port),
        "domain": settings.domain,
    }
    for name, value in found.items():
        action = action.replace(f"{{{name}}}", value)
    return action


def _pm2_of(user: str, path: str) -> str:
    """The command as root types it. `path` finds the Node that runs pm2: nvm's is on no other PATH."""
    is_found = not path or path.startswith(("PATH=/usr/bin:", "PATH=/usr/local/bin:"))
    command = "pm2" if is_found else f"env {path}pm2"
    return command if user == "root" else f"runuser -u {user} -- {command}"


def _message(excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
    del style
    return str(excinfo.value)


def _verdict(
    report: pytest.TestReport, call: pytest.CallInfo[None], action: str, target: Target
) -> tuple[Status, str, str]:
    if call.excinfo is None:
        return Status.READY, str(dict(report.user_properties).get("seen", "")), ""
    error = call.excinfo.value
    if isinstance(error, Pending):
        return Status.PENDING, str(error), _filled(action, target)
    if isinstance(error, NotChecked | Lost):
        return Status.UNCHECKED, str(error), ""
    if isinstance(error, AssertionError):
        return Status.FAILING, str(error), _filled(getattr(error, "action", action), target)
    return Status.FAILING, f"this check itself failed: {type(error).__name__}: {error}", "report this bug"
