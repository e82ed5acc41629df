"""The application's source files that get a marked block each, by path."""

from facts.look import Noun


class Source(Noun[dict[str, str | None]]):
    pass
