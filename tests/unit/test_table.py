from __future__ import annotations

import io

import pytest

from tests.verify.table import COMPONENTS, Status, Table


def table(**statuses: Status) -> Table:
    """All ready but what is named."""
    made = Table("host")
    for component in COMPONENTS:
        made.rows[component].add(statuses.get(component, Status.READY), f"evidence of {component}", "do this")
    return made


def printed(made: Table) -> str:
    out = io.StringIO()
    made.print(out)
    return out.getvalue()


def test_ten_components() -> None:
    assert len(COMPONENTS) == 10


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ({}, 0),
        ({"app_id": Status.PENDING}, 2),
        ({"app_id": Status.PENDING, "partner_token": Status.PENDING}, 2),
        ({"app_id": Status.PENDING, "nginx": Status.FAILING}, 1),
        ({"nginx": Status.UNCHECKED}, 1),
        ({"nginx": Status.FAILING}, 1),
    ],
)
def test_exit_code(statuses: dict[str, Status], code: int) -> None:
    assert table(**statuses).exit_code == code


def test_a_component_without_a_check_is_not_ready() -> None:
    made = table()
    made.rows["tls"] = type(made.rows["tls"])()
    assert made.exit_code == 1
    assert Table("host").exit_code == 1


@pytest.mark.parametrize("order", [1, -1])
def test_the_worst_check_decides(order: int) -> None:
    made = table()
    row = made.rows["nginx"]
    for status in [Status.PENDING, Status.FAILING, Status.READY][::order]:
        row.add(status, f"it is {status}", f"fix {status}")
    assert row.status is Status.FAILING
    assert row.evidence == ["it is failing"]
    assert row.actions == ["fix failing"]
    assert row.checks == 4
    assert made.exit_code == 1


def test_a_check_that_broke_is_never_hidden_by_a_pending_one() -> None:
    made = table(app_id=Status.PENDING)
    made.rows["app_id"].add(Status.UNCHECKED, "ValueError: x")
    assert made.exit_code == 1


def test_what_is_printed() -> None:
    made = table(app_id=Status.PENDING, nginx=Status.FAILING)
    made.rows["nginx"].add(Status.FAILING, "long " * 100, "do this")
    text = printed(made)
    assert "\033" not in text
    assert max(len(line) for line in text.partition("\n8 ready")[0].splitlines()) <= 100
    for name in COMPONENTS.values():
        assert text.count(f" {name} ") == 1
    assert "host: 11 checks" in text
    assert "\n8 ready, 1 pending, 1 failing\n" in text
    assert "→ do this" in text


def test_a_command_is_never_cut() -> None:
    made = Table("host")
    made.rows["nginx"].add(Status.FAILING, "evidence", command := "word " * 100 + "end")
    assert printed(made).count(command) == 2, "in the row, and at the end"


def test_the_next_steps_are_few_and_in_order() -> None:
    made = Table("host", deploy := "pyinfra my.py deploy.py --limit host")
    for component in ("endpoints", "database", "nginx"):
        made.rows[component].add(Status.FAILING, "broken", f"{deploy} (this is the cause)")
    made.rows["tls"].add(Status.FAILING, "broken", "nginx -t && systemctl reload nginx")
    made.rows["app_id"].add(Status.PENDING, "absent", f"when it came, put it into your .env; then {deploy}")
    made.rows["html"].add(Status.READY, "there", "")
    steps = [(step.command, step.place, step.rows) for step in made.next_steps]
    assert steps == [
        ("nginx -t && systemctl reload nginx", "on the host", ["HTTPS/SSL"]),
        (deploy, "on your laptop", ["Endpoints", "Database", "Nginx WebSocket"]),
        (f"when it came, put it into your .env; then {deploy}", "", ["Application ID"]),
    ]
    assert made.data()["next"][1] == {"command": deploy, "place": steps[1][1], "rows": steps[1][2]}
    last = [line.strip() for line in printed(made).splitlines() if line.strip()][-6:]
    assert last[1::2] == [command for command, _, _ in steps]


def test_deploy_is_no_remedy_where_it_would_change_nothing() -> None:
    made = Table("host", deploy := "pyinfra my.py deploy.py")
    made.rows["nginx"].add(Status.FAILING, "broken", f"{deploy} (this is the cause)", otherwise="do that")
    made.rows["app_id"].add(Status.FAILING, "wrong", f"put it into your .env; then {deploy}", otherwise="no")
    made.rows["database"].add(Status.PENDING, "absent", deploy, otherwise="no")
    assert made.wants_deploy
    made.without_deploy()
    assert not made.wants_deploy
    assert made.rows["nginx"].actions == ["by hand (deploy would change nothing): do that"]
    assert made.rows["app_id"].actions == [f"put it into your .env; then {deploy}"]
    assert made.rows["database"].actions == [deploy]


def test_colour_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    table().print(out)
    assert "\033[32m" in out.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    table().print(out)
    assert "\033" not in out.getvalue()
