"""The API's process under pm2."""

from facts.look import Noun
from remote.readings import Running


class Pm2(Noun[Running]):
    pass
