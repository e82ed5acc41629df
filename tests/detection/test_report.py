"""The page of bin/verify --html, in a real browser: on a phone and a laptop, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.detection.browser import Driver, browser
from tests.verify.report import page
from tests.verify.table import COMPONENTS, Status, Table

pytestmark = pytest.mark.slow
DEPLOY = "pyinfra my.py deploy.py --limit example.org"
# Of every text: the contrast between its colour and what is behind it, as WCAG 2 counts it, and where it is too low.
CONTRAST = """
const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
const rgba = text => text.match(/[\\d.]+/g).map(Number);
const behind = node => {
  for (; node; node = node.parentElement) {
    const colour = rgba(getComputedStyle(node).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
};
return [...document.querySelectorAll("body *")].filter(each => each.checkVisibility() &&
  [...each.childNodes].some(child => child.nodeType === 3 && child.textContent.trim())).map(each => {
    const [a, b] = [light(rgba(getComputedStyle(each).color)), light(behind(each))].sort((a, b) => b - a);
    return [(a + .05) / (b + .05), each.textContent.trim().slice(0, 40)];
  }).filter(([ratio]) => ratio < 4.5);
"""
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
        made.run("document.querySelectorAll('details').forEach(each => each.open = true)")
        yield made


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_it_fits_and_can_be_read(driver: Driver, tmp_path: Path, width: int, scheme: str) -> None:
    driver.look(width, scheme)
    (tmp_path / "page.png").write_bytes(driver.screenshot())
    assert driver.run("return innerWidth") == width
    assert driver.run("return document.documentElement.scrollWidth") <= width
    assert driver.run(WIDER) == []
    assert driver.run(CONTRAST) == []


def test_what_is_too_pale_or_too_wide_is_noticed(driver: Driver) -> None:
    driver.look(375, "light")
    driver.run(
        "document.body.insertAdjacentHTML('beforeend', '<pre id=bad style=\"color:#aaa;width:60rem\">pale</pre>')"
    )
    assert [text for _, text in driver.run(CONTRAST)] == ["pale"]
    assert len(driver.run(WIDER)) == 1
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
