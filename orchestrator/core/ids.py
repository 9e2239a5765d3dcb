"""Ids that sort by the time they were made, to the microsecond (UUIDv7, RFC 9562 method 3).

Rows of one instance are ordered by id. Their makers are different processes, and one millisecond is long: so the
twelve bits behind the millisecond hold its fraction, and a counter orders what one process makes at one moment. The
counter starts anywhere, so that processes differ, and is wide: when it turns over, the ids of that one moment are out
of order.
"""

from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID, SafeUUID

from orchestrator.core.values import overwrite

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_COUNTER_BITS = 30
_COUNTER_END = 1 << _COUNTER_BITS
_UNKNOWN = SafeUUID.unknown
_RANDOM_BITS = 32


class IdMaker:
    """Makes ids from the clock it is given.

    >>> make = IdMaker(Random(1))
    >>> moment = datetime(2026, 1, 1, tzinfo=UTC)
    >>> first, second, later = make(moment), make(moment), make(moment + _MICROSECOND)
    >>> first < second < later, first.version
    (True, 7)
    >>> second < min(some := make.many(moment, 3)), some == sorted(some)
    (True, True)
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._counter = random.getrandbits(_COUNTER_BITS - 1)
        self._moment = _EPOCH
        self._of_moment = moment_bits(_EPOCH)

    def __call__(self, moment: datetime) -> UUID:
        """Make the id of something that happens at `moment` (aware UTC)."""
        if moment != self._moment:
            self._moment, self._of_moment = moment, moment_bits(moment)
        self._counter = (self._counter + 1) % _COUNTER_END
        return uuid_of(self._of_moment | self._counter << _RANDOM_BITS | self._random.getrandbits(_RANDOM_BITS))

    def many(self, moment: datetime, count: int) -> list[UUID]:
        """Make the ids of some things that happen at `moment`, in their order."""
        first, of_moment, chance = self._counter + 1, moment_bits(moment), self._random.getrandbits
        self._counter = (self._counter + count) % _COUNTER_END
        return [
            uuid_of(of_moment | (number % _COUNTER_END) << _RANDOM_BITS | chance(_RANDOM_BITS))
            for number in range(first, first + count)
        ]


def uuid_of(bits: int) -> UUID:
    """Give the UUID of 128 bits: `UUID(int=bits)`, which takes three times as long to look at all that it may be given.

    >>> uuid_of(7) == UUID(int=7)
    True
    """
    made = object.__new__(UUID)
    overwrite(made, "int", bits)
    overwrite(made, "is_safe", _UNKNOWN)
    return made


def moment_bits(moment: datetime) -> int:
    """Give the bits that all ids of one moment (aware UTC) share; the lower 62 are left."""
    since = moment - _EPOCH
    milliseconds = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    rest = since.microseconds % 1000
    value = (milliseconds & ((1 << 48) - 1)) << 80
    value |= 7 << 76
    value |= (rest * 4096 // 1000) << 64
    return value | 2 << 62  # the variant
