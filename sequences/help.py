"""What each filter and each function does, in words and by an example that can be run; the reference is made of it."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Help:
    """How one is called, what it gives, and an example.

    Attributes:
        form: Name and arguments, as written.
        effect: What comes out, in plain words.
        example: A template of a filter, an expression of a function; it reads `EXAMPLE_DATA`.
    """

    form: str
    effect: str
    example: str

    @property
    def name(self) -> str:
        """Return the name without arguments."""
        return self.form.partition("(")[0]


EXAMPLE_DATA: Final = {
    "name": " Ann Bell ",
    "n": -2.345,
    "tags": ["b", "a", "b"],
    "prices": [4, 1.5],
    "path": "a b/c",
    "empty": "",
    "day": "2026-03-02T12:00:00Z",
    "size": {"w": 2, "h": 3},
}

FILTERS_HELP: Final = (
    Help("upper", "text in capitals; anything else counts as empty text", "{{ data.name | upper }}"),
    Help("lower", "text in small letters; anything else counts as empty text", "{{ data.name | lower }}"),
    Help("trim", "text without white space at its ends", "{{ data.name | trim }}"),
    Help("abs", "number without its sign; 0 for anything else", "{{ data.n | abs }}"),
    Help("round(n)", "number with n decimals, half away from zero; 0 decimals without n", "{{ data.n | round(2) }}"),
    Help(
        "url_encode", "text for an address: all but letters, digits and `-._~` as `%XX`", "{{ data.path | url_encode }}"
    ),
    Help("base64", "text in base64, of its UTF-8 bytes", "{{ data.path | base64 }}"),
    Help(
        "base64_decode",
        "the text that was encoded; an error for what is no base64",
        "{{ data.x | YSBi | base64_decode }}",
    ),
    Help("replace(s, r)", "every s replaced by r; r may be a path", "{{ data.path | replace(a, 'x') }}"),
    Help("default(v)", "v when the value is null or empty text", "{{ data.empty | default(none) }}"),
    Help(
        "truncate(n, suffix)",
        "the first n characters, and the suffix if some were cut off",
        "{{ data.path | truncate(3, '…') }}",
    ),
    Help("join(sep)", "array as text; empty text for anything else", "{{ data.tags | join(, ) }}"),
    Help("split(sep)", "text as an array", "{{ data.path | split(/) }}"),
    Help("hash(sha256)", "SHA-256 of the text, as lower-case hex", "{{ data.path | hash(sha256) | truncate(8) }}"),
)

FUNCTIONS_HELP: Final = (
    Help("len(x)", "elements, keys, or UTF-8 bytes of a text; else 0", "len(tags)"),
    Help("abs(n)", "number without its sign", "abs(n)"),
    Help("clamp(n, low, high)", "n, but not below low or above high", "clamp(7, 0, 5)"),
    Help("change_pct(old, new)", "change from old to new in percent; null for old 0", "change_pct(50, 75)"),
    Help("sum(array)", "sum of the numbers in it", "sum(prices)"),
    Help("avg(array)", "mean of the numbers in it; null without any", "avg(prices)"),
    Help("min(array)", "smallest number in it; null without any", "min(prices)"),
    Help("max(array)", "largest number in it; null without any", "max(prices)"),
    Help("first(array)", "first element", "first(tags)"),
    Help("last(array)", "last element", "last(tags)"),
    Help("slice(array, start, end)", "elements from start up to, without, end", "slice(tags, 1, 3)"),
    Help('sort(array, "desc")', "sorted: null < bool < number < string < array < object", "sort(tags)"),
    Help("unique(array)", "each value once", "unique(tags)"),
    Help("count(array, v)", "how often v is in it", 'count(tags, "b")'),
    Help("contains(x, v)", "whether an array has v, or a text has the text v in it", 'contains(path, "b/")'),
    Help("starts_with(s, p)", "whether a text begins with p", 'starts_with(path, "a")'),
    Help("ends_with(s, p)", "whether a text ends with p", 'ends_with(path, "c")'),
    Help("keys(object)", "its keys, sorted", "keys(size)"),
    Help("values(object)", "its values, in the order of the sorted keys", "values(size)"),
    Help("json(x)", "the value as JSON text", "json(size)"),
    Help("now()", "the time, in RFC 3339", "len(now()) > 19"),
    Help("uuid()", "a new random UUID", "len(uuid())"),
    Help("random(min, max)", "a random integer from min up to, without, max; 0 and 100 if not given", "random(5, 6)"),
    Help("format_date(time, format)", "a time in a strftime format", 'format_date(day, "%d.%m.%Y")'),
    Help("day_of_week(time)", "0 for Monday up to 6 for Sunday", "day_of_week(day)"),
)
