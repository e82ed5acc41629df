"""nginx: the site's two files, the configuration on disk, and whether that is what runs."""

from facts.look import Noun
from remote.readings import Configuration


class Nginx(Noun[Configuration]):
    pass
