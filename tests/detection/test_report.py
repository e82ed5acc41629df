"""The page of bin/verify --html, in a real browser: on a phone and a laptop, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import pytest

from tests.detection.browser import Driver, browser
from tests.verify.report import page
from tests.verify.table import COMPONENTS, Status, Table

pytestmark = pytest.mark.slow
A4 = 718  # px: 190 mm
DEPLOY = "pyinfra my.py deploy.py --limit example.org"
AXE = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
# What axe finds: the rule, and each place.
FOUND = """
return axe.run().then(({violations}) => violations.map(each => [each.id, ...each.nodes.map(node => node.html)]))"""
WIDER = """
return [...document.querySelectorAll("body *")].filter(each => each.getBoundingClientRect().right > innerWidth + 1)
  .map(each => each.outerHTML.slice(0, 80));
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    folder = tmp_path_factory.mktemp("report")
    table = Table("example.org", DEPLOY)
    for number, component in enumerate(COMPONENTS):
        table.rows[component].add(list(Status)[number % 4], f"evidence of {component} " * 5, "", f"check_{number}")
    table.rows["nginx"].add(Status.FAILING, "a/very/long/path" * 20, f"{DEPLOY} (this is the cause of it)")
    table.rows["tls"].add(Status.FAILING, "broken", "nginx -t && systemctl reload nginx; " * 8)
    (folder / "page.html").write_text(page([table.data()]), encoding="utf-8")
    with browser(folder, "MAP * ~NOTFOUND") as made:
        made.open(f"file://{folder}/page.html")
        made.run(AXE)
        made.run("document.querySelectorAll('details').forEach(each => each.open = true)")
        yield made


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_it_fits_and_can_be_read(driver: Driver, width: int, scheme: str) -> None:
    driver.look(width, scheme)
    assert driver.run("return innerWidth") == width
    assert driver.run("return document.documentElement.scrollWidth") <= width
    assert driver.run(WIDER) == []
    assert driver.run(FOUND) == []


def test_on_paper_nothing_is_cut_and_nothing_asks_for_a_click(driver: Driver) -> None:
    driver.look(A4, "light", "print")
    assert driver.run("return [...document.querySelectorAll('button')].filter(each => each.checkVisibility())") == []
    assert driver.run(WIDER) == []
    assert driver.run(FOUND) == []


def test_what_is_too_pale_or_too_wide_or_has_no_name_is_noticed(driver: Driver) -> None:
    driver.look(375, "light")
    bad = '<pre id=bad style="color:#aaa;width:60rem">pale<button></button></pre>'
    driver.run(f"document.body.insertAdjacentHTML('beforeend', '{bad}')")
    assert {rule for rule, *_ in driver.run(FOUND)} >= {"color-contrast", "button-name"}
    assert len(driver.run(WIDER)) >= 1
    driver.run("document.getElementById('bad').remove()")


def test_what_is_worst_comes_first(driver: Driver) -> None:
    shown = driver.run("return [...document.querySelectorAll('.status')].map(each => each.textContent.trim().slice(2))")
    assert shown == sorted(shown, key=["failing", "not checked", "pending", "ready"].index)


def test_a_command_stands_apart_and_is_copied_by_keyboard(driver: Driver) -> None:
    commands = driver.run("return [...document.querySelectorAll('code')].map(each => each.textContent)")
    assert commands.count(DEPLOY) == 2, "in its row and at the end, without the prose beside it"
    focused = """
      const button = [...document.querySelectorAll('button')].find(each => each.previousSibling.textContent === '%s');
      button.focus(); button.click();
      return [document.activeElement === button, getSelection().toString(), button.textContent];"""
    is_focused, selected, label = driver.run(focused % DEPLOY)
    assert (is_focused, selected) == (True, DEPLOY)
    assert label in ("Copied", "Now press Ctrl-C")
