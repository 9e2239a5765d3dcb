"""Ids that sort by the time they were made, to the microsecond (UUIDv7, RFC 9562 method 3).

Rows of one instance are ordered by id. Their makers are different processes, and one millisecond is long: so the
twelve bits behind the millisecond hold its fraction, and a counter orders what one process makes at one moment. The
counter starts anywhere, so that processes differ, and is wide: when it turns over, the ids of that one moment are out
of order.
"""

from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_COUNTER_BITS = 30
_RANDOM_BITS = 32


class IdMaker:
    """Makes ids from the clock it is given.

    >>> make = IdMaker(Random(1))
    >>> moment = datetime(2026, 1, 1, tzinfo=UTC)
    >>> first, second, later = make(moment), make(moment), make(moment + _MICROSECOND)
    >>> first < second < later, first.version
    (True, 7)
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
        self._counter = (self._counter + 1) % (1 << _COUNTER_BITS)
        return UUID(int=self._of_moment | self._counter << _RANDOM_BITS | self._random.getrandbits(_RANDOM_BITS))


def moment_bits(moment: datetime) -> int:
    """Give the bits that all ids of one moment (aware UTC) share; the lower 62 are left."""
    since = moment - _EPOCH
    milliseconds = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    rest = since.microseconds % 1000
    value = (milliseconds & ((1 << 48) - 1)) << 80
    value |= 7 << 76
    value |= (rest * 4096 // 1000) << 64
    return value | 2 << 62  # the variant
