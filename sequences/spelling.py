"""Finding the name somebody meant: the nearest of a few known names, in time linear in the word (§1, did-you-mean)."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

_SHORT = 5
_LONGEST_WORD = 40


class NearNames:
    """Known names, found by words that miss, add, swap or (for long names) change one letter.

    Symmetric deletes: two words are near iff one with a letter left out equals the other, or the other with a letter
    left out. Short names must match without the second kind, or `mail` would be taken for `fail`.

    >>> NearNames(["sleep", "http_request"]).nearest("HttpRequest")
    'http_request'
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._shortened: Mapping[str, str] = MappingProxyType(
            {shorter: name for name in sorted(self._names) for shorter in _deletes(name)}
        )

    def nearest(self, word: str) -> str | None:
        """Return the known name a word is near to; None if it is one itself, or near to none."""
        if word in self._names or len(word) > _LONGEST_WORD:
            return None
        lower = word.lower()
        if lower in self._names:
            return lower
        if lower in self._shortened:
            return self._shortened[lower]
        for shorter in _deletes(lower):
            if shorter in self._names:
                return shorter
            name = self._shortened.get(shorter, "")
            if len(name) > _SHORT or sorted(name) == sorted(lower):
                return name
        return None


def _deletes(word: str) -> Iterator[str]:
    return (word[:place] + word[place + 1 :] for place in range(len(word)))
