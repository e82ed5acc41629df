"""The packages that the application needs, in its `node_modules`."""

from facts.look import Noun
from remote.readings import Package


class Npm(Noun[dict[str, Package]]):
    pass
