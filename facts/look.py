"""One look at the host answers for all facts: one channel, one process, the nouns side by side.

Operations `ask` for what a noun reads: pyinfra's own `host.get_fact` would run a command for each.
"""

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast

from pyinfra import logger
from pyinfra.api.facts import FactBase, ShortFactBase
from pyinfra.api.host import Host
from pyinfra.api.output import format_text
from pyinfra.api.state import State

import credentials
import remote.dotenv
import remote.migration
import remote.nginx
import remote.npm
import remote.pm2
import remote.source
from channel import Channel, HostUnfit, shown
from rules import DOTENV, KEYS, MENTION, MIGRATION, MIGRATION_COPY, ROUTES, SESSION_POOL
from settings import Settings

P = ParamSpec("P")
T = TypeVar("T")


def expect(host: Host, read: Callable[P, object], /, *_: P.args, **arguments: P.kwargs) -> str:
    """The noun of this `read` will be asked for: the next look reads it together with the others. Returns its name."""
    noun = read.__module__.removeprefix("remote.")
    if _ or read.__name__ != "read":
        raise TypeError(f"{noun}: its `read` is asked, with every argument by its name")
    Channel.of(host).asked[noun] = {**arguments}
    return noun


def ask(host: Host, read: Callable[P, T], /, *args: P.args, **arguments: P.kwargs) -> T:
    """What `read`, a function of `remote`, finds on the host as it is now. Raises HostUnfit, in one line."""
    return cast(T, sound(host, expect(host, read, *args, **arguments)))


def sound(host: Host, noun: str) -> Any:
    """What the look found of this noun. Raises HostUnfit when it could not be read."""
    answer = Channel.of(host).look()[noun]
    if "error" in answer:
        raise HostUnfit(f"{noun} on {host.name}: {answer['error']}")
    return answer


def expect_all(host: Host, settings: Settings, own: credentials.Credentials) -> None:
    """What deploy.py asks for. The first that cannot be read is told: pm2's reason says more than npm's."""
    app_dir, own_copy = settings.app_dir, MIGRATION_COPY.read_text(encoding="utf-8")
    database = own.database(settings.database_ca)
    expect(host, remote.pm2.read, api=settings.api, keys=KEYS)
    expect(host, remote.npm.read, app=settings.api_app, app_dir=app_dir, packages=list(settings.packages))
    expect(host, remote.migration.read, app_dir=app_dir, database=database, name=MIGRATION, own=own_copy)
    expect(host, remote.nginx.read, site=settings.nginx_site, domain=settings.domain)
    expect(host, remote.dotenv.read, path=settings.dotenv, values=own.keys, rules=DOTENV)
    expect(host, remote.source.read, app_dir=app_dir, paths=[ROUTES, SESSION_POOL], mention=MENTION)


class Look(FactBase[dict[str, Any]]):
    """What all nouns read, by noun.

    It is made where pyinfra hands us the host, and the command that it insists on does nothing: DECISIONS.md.
    """

    def check_preconditions(self, state: State, host: Host) -> None:
        del state
        try:
            expect_all(host, Settings.load(host.data.dict()), credentials.of_operator())
            self.found = Channel.of(host).look(lock=False)
        except Exception as error:
            host.log_styled(str(error), fg="red", log_func=logger.error)  # pyinfra passes over it in silence
            raise

    def command(self) -> str:
        return "echo"

    def process(self, output: list[str]) -> dict[str, Any]:
        del output
        return self.found


class Noun(ShortFactBase, Generic[T]):  # type: ignore[type-arg]  # pyinfra makes no use of its own T
    """The fact of one noun, for `pyinfra … fact`; T is what its `read` in `remote` returns."""

    fact = Look

    def process_data(self, data: dict[str, Any]) -> T | None:
        """None where it cannot be read, and the reason in red."""
        noun = type(self).__name__.lower()
        if "error" not in data[noun]:
            return cast(T, shown(data[noun]))
        logger.error(format_text(f"{noun}: {data[noun]['error']}", "red"))
        return None
