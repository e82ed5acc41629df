"""The marketplace migration, as the database knows it."""

from facts.look import Noun
from remote.readings import Applied


class Migration(Noun[Applied]):
    pass
