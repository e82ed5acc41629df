"""A converged host, and bundles that are broken on purpose."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rehearsal.host import Host, of_this_run
from tests.rehearsal.story import ROOT
from tests.resilience.world import World

Mutate = Callable[[str, str, str], Path]


@pytest.fixture(scope="session")
def converged() -> Iterator[Host]:
    """A host that has all but the tokens, or those of the test before."""
    host = of_this_run("fault1")
    host.reset()
    assert World(host).deploy({}).code == 0
    yield host
    host.down()


@pytest.fixture
def mutate(tmp_path: Path) -> Mutate:
    """A bundle in which one text of one file is another."""

    def make(file: str, old: str, new: str) -> Path:
        folder = tmp_path / "mutant"
        folder.mkdir()
        for entry in ROOT.iterdir():
            if not entry.name.startswith("."):
                (folder / entry.name).symlink_to(entry)
        top = folder / Path(file).parts[0]
        top.unlink()
        copy = shutil.copytree if (ROOT / top.name).is_dir() else shutil.copy
        copy(ROOT / top.name, top)
        text = (folder / file).read_text()
        assert old in text, "the mutation has no place any more"
        (folder / file).write_text(text.replace(old, new))
        return folder

    return make
