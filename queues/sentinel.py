"""Redis behind Sentinels: an address as Celery knows it, and behind a `#` the name of the primary that they watch.

sentinel://user:password@one:26379/0;sentinel://two:26379;sentinel://three:26379#mymaster
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from redis import Redis

SCHEME: Final = "sentinel"
PORT: Final = 26379
FORM: Final = "sentinel://user:password@one:26379/0;sentinel://two:26379#mymaster"


def is_sentinel(url: str) -> bool:
    """Tell whether an address names Sentinels."""
    return url.startswith(f"{SCHEME}://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentinels:
    """Who knows where a primary is, and how to talk to it.

    Args:
        hosts: Host and port of each Sentinel.
        primary: The name under which they watch it.
        database: Of the primary.
        username: At the primary; None for the default user.
        password: At the primary.
        own_password: At the Sentinels themselves: it follows the name, behind a colon.
    """

    hosts: tuple[tuple[str, int], ...]
    primary: str
    database: int
    username: str | None
    password: str | None
    own_password: str | None

    @classmethod
    def of(cls, url: str) -> "Sentinels":
        """Read an address.

        >>> Sentinels.of("sentinel://one/2;sentinel://two:5000#cache").hosts
        (('one', 26379), ('two', 5000))

        Raises:
            ValueError: It names no primary, or something else than Sentinels, or a port or database is no number.
        """
        addresses, _, name = url.partition("#")
        primary, _, own_password = name.partition(":")
        parts = [urlsplit(address) for address in addresses.split(";")]
        if not primary or not all(
            each.scheme == SCHEME and _is_host(each.hostname) and not each.query for each in parts
        ):
            raise ValueError(f"an address of Sentinels is written {FORM}")
        database = parts[0].path.strip("/") or "0"
        if not database.isdecimal():
            raise ValueError(f"the database of {SCHEME}:// is a number, not {database!r}")
        return cls(
            hosts=tuple((each.hostname or "", each.port or PORT) for each in parts),
            primary=unquote(primary),
            database=int(database),
            username=_text(parts[0].username),
            password=_text(parts[0].password),
            own_password=_text(own_password),
        )

    def client(self, **options: Any) -> "Redis":
        """Make a client of the primary, wherever it is; `options` are those of its connections."""
        from redis import Redis  # noqa: PLC0415 - whoever only reads an address needs no client
        from redis.sentinel import Sentinel  # noqa: PLC0415

        waits = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout") if name in options}
        sentinel = Sentinel(self.hosts, sentinel_kwargs={**self._own, **waits}, **options)  # type: ignore[no-untyped-call]
        client: Redis = sentinel.master_for(  # type: ignore[no-untyped-call]
            self.primary, Redis, db=self.database, username=self.username, password=self.password
        )
        return client

    @property
    def transport_options(self) -> dict[str, Any]:
        """What kombu does not read from an address."""
        return {"master_name": self.primary, "sentinel_kwargs": {**self._own, "socket_timeout": 2}}

    @property
    def _own(self) -> dict[str, Any]:
        return {} if self.own_password is None else {"password": self.own_password}


def _is_host(name: str | None) -> bool:
    return bool(name) and "," not in str(name)


def _text(quoted: str | None) -> str | None:
    return unquote(quoted) if quoted else None
