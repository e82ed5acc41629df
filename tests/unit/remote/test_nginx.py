"""The site's file and the link to it are written whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote import Failure, backups, nginx
from remote.files import sha256


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files that differ, and an nginx that runs nowhere and takes everything."""
    monkeypatch.setattr(nginx, "workers", list)
    monkeypatch.setattr(nginx, "complaint", str)
    (tmp_path / "available").write_bytes(b"old")
    (tmp_path / "enabled").write_bytes(b"copy")
    return tmp_path


def write(etc: Path, expected: bytes = b"old", replaced: bytes = b"copy") -> None:
    nginx.write_site(
        "20260101T000000Z",
        file=f"{etc}/available",
        content="new",
        expected=sha256(expected),
        link=f"{etc}/enabled",
        replaced=sha256(replaced),
    )


def test_a_copy_becomes_a_link(etc: Path) -> None:
    write(etc)
    assert (etc / "available").read_bytes() == b"new"
    assert (etc / "enabled").readlink() == etc / "available"
    assert Path(f"{backups.BACKUPS}/20260101T000000Z{etc}/enabled").read_bytes() == b"copy"


@pytest.mark.parametrize("seen", [{"expected": b"?"}, {"replaced": b"?"}])
def test_neither_is_written_where_one_is_not_what_the_plan_saw(etc: Path, seen: dict[str, bytes]) -> None:
    with pytest.raises(Failure, match=r"(available|enabled) was changed by somebody else just now; run again"):
        write(etc, **seen)
    assert (etc / "available").read_bytes() == b"old"
    assert (etc / "enabled").read_bytes() == b"copy"
    assert not (etc / "enabled").is_symlink()


def test_what_nginx_refuses_is_put_back(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "complaint", lambda: "emerg")
    with pytest.raises(Failure, match=r"nginx refuses the new site; put back as they were: .*enabled: emerg"):
        write(etc)
    assert (etc / "available").read_bytes() == b"old"
    assert (etc / "enabled").read_bytes() == b"copy"
    assert not (etc / "enabled").is_symlink()


DUMP = """# configuration file /etc/nginx/nginx.conf:
http { include /etc/nginx/conf.d/*.conf; include mime.types;
    # include /etc/other/*.conf;
    include 'sites-enabled/*';
}
# configuration file /etc/nginx/mime.types:
# configuration file /etc/nginx/sites-enabled/site:
    include /etc/letsencrypt/options-ssl-nginx.conf; # managed by Certbot
# configuration file /etc/letsencrypt/options-ssl-nginx.conf:
"""


def test_the_folders_that_count_are_those_of_which_nginx_takes_what_matches() -> None:
    """In /etc/letsencrypt and /etc/nginx certbot makes and removes its lock twice a day."""
    *loaded, empty, last = nginx.files_of(DUMP)
    assert [file.rpartition("/")[2] for file in loaded] == [
        "nginx.conf",
        "mime.types",
        "site",
        "options-ssl-nginx.conf",
    ]
    assert (empty, last) == ("/etc/nginx/conf.d", "/etc/nginx/sites-enabled")
    nested = "# configuration file /etc/nginx/a/b.conf:\n include */*.conf;\n"
    assert nginx.files_of(nested) == ["/etc/nginx/a/b.conf", "/etc/nginx/*", "/etc/nginx/a"]
