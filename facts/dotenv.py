"""The three keys in the application's `.env`, as the application reads them."""

from facts.look import Noun
from remote.readings import Secrets


class Dotenv(Noun[Secrets]):
    pass
