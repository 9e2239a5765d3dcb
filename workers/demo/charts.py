"""Charts as inline SVG. Pure. Colours and fonts come from the page's style, so they follow light and dark."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 640
ROW = 26
LABEL = 132
VALUE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar; `text` is what stands at its end, `hint` what a pointer over it shows."""

    label: str
    value: float
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One dot of a scatter."""

    x: float
    y: float
    hint: str


def rows(bars: Sequence[Bar], *, title: str, top: float | None = None) -> str:
    """Draw horizontal bars, one below the other.

    Args:
        bars: From top to bottom.
        title: What a screen reader says.
        top: The value of a full bar; None for the longest.
    """
    full = top or max((bar.value for bar in bars), default=0) or 1
    room = WIDTH - LABEL - VALUE
    drawn = [_row(bar, number * ROW, room * bar.value / full, room) for number, bar in enumerate(bars)]
    return _svg(drawn, height=len(bars) * ROW, title=title)


def _row(bar: Bar, y: float, length: float, room: float) -> str:
    middle = y + ROW / 2
    return (
        f"<g><title>{escape(bar.hint or f'{bar.label}: {bar.text}')}</title>"
        f'<text class="label" x="{LABEL - 10}" y="{middle}" text-anchor="end">{escape(bar.label)}</text>'
        f'<rect class="track" x="{LABEL}" y="{y + 5}" width="{room}" height="{ROW - 10}" rx="4"/>'
        f'<rect class="bar" x="{LABEL}" y="{y + 5}" width="{max(length, 2):.1f}" height="{ROW - 10}" rx="4"/>'
        f'<text class="value" x="{WIDTH}" y="{middle}" text-anchor="end">{escape(bar.text)}</text></g>'
    )


def columns(bars: Sequence[Bar], *, title: str, height: int = 260) -> str:
    """Draw vertical bars side by side; the later, the warmer their colour."""
    full = max((bar.value for bar in bars), default=0) or 1
    step = WIDTH / max(len(bars), 1)
    room = height - 56
    drawn = []
    for number, bar in enumerate(bars):
        x, tall = number * step + step / 2, max(room * bar.value / full, 2)
        drawn.append(
            f"<g><title>{escape(bar.hint or f'{bar.label}: {bar.text}')}</title>"
            f'<rect class="bar heat-{number}" x="{x - step * 0.34:.1f}" y="{28 + room - tall:.1f}" '
            f'width="{step * 0.68:.1f}" height="{tall:.1f}" rx="4"/>'
            f'<text class="value" x="{x:.1f}" y="{16 + room - tall:.1f}" text-anchor="middle">{escape(bar.text)}</text>'
            f'<text class="label" x="{x:.1f}" y="{height - 12}" text-anchor="middle">{escape(bar.label)}</text></g>'
        )
    axis = f'<line class="axis" x1="0" x2="{WIDTH}" y1="{28 + room}" y2="{28 + room}"/>'
    return _svg([*drawn, axis], height=height, title=title)


def scatter(dots: Sequence[Dot], *, title: str, x_name: str, y_name: str, height: int = 320) -> str:
    """Draw dots over two logarithmic axes; values below 1 lie on the edge."""
    left, bottom, top, right = 44, height - 44, 12, WIDTH - 8
    x_decades = _decades(dot.x for dot in dots)
    y_decades = _decades(dot.y for dot in dots)

    def across(value: float) -> float:
        return left + (right - left) * _log(value) / x_decades

    def up(value: float) -> float:
        return bottom - (bottom - top) * _log(value) / y_decades

    grid = [
        f'<line class="grid" x1="{across(10**n):.1f}" x2="{across(10**n):.1f}" y1="{top}" y2="{bottom}"/>'
        f'<text class="tick" x="{across(10**n):.1f}" y="{bottom + 16}" text-anchor="middle">{10**n:,}</text>'
        for n in range(x_decades + 1)
    ] + [
        f'<line class="grid" x1="{left}" x2="{right}" y1="{up(10**n):.1f}" y2="{up(10**n):.1f}"/>'
        f'<text class="tick" x="{left - 8}" y="{up(10**n):.1f}" text-anchor="end">{10**n:,}</text>'
        for n in range(y_decades + 1)
    ]
    names = (
        f'<text class="label" x="{right}" y="{height - 8}" text-anchor="end">{escape(x_name)}</text>'
        f'<text class="label" x="{left + 8}" y="{top + 8}">{escape(y_name)}</text>'
    )
    drawn = [
        f'<circle class="dot" cx="{across(dot.x):.1f}" cy="{up(dot.y):.1f}" r="4">'
        f"<title>{escape(dot.hint)}</title></circle>"
        for dot in dots
    ]
    return _svg([*grid, *drawn, names], height=height, title=title)


def _log(value: float) -> float:
    return math.log10(max(value, 1))


def _decades(values: Iterable[float]) -> int:
    """Say how many decades from 1 hold all values."""
    return max(1, math.ceil(max((_log(value) for value in values), default=1)))


def _svg(parts: Sequence[str], *, height: float, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
