"""What is, by noun: `pyinfra INVENTORY fact facts.Dotenv` prints it. All come from one look at the host.

No secret's value is in one.
"""

from facts.look import Noun
from remote.readings import Applied, Configuration, Package, Running, Secrets


class Dotenv(Noun[Secrets]):
    """The three keys in the application's `.env`, as the application reads them."""


class Npm(Noun[dict[str, Package]]):
    """The packages that the application needs, in its `node_modules`."""


class Source(Noun[dict[str, str | None]]):
    """The application's source files that speak of the marketplace, by path."""


class Migration(Noun[Applied]):
    """The marketplace migration, as the database knows it."""


class Nginx(Noun[Configuration]):
    """The site's files, the configuration on disk, and whether that is what runs."""


class Pm2(Noun[Running]):
    """The API's process under pm2."""
