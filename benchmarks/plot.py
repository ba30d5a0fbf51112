"""Curves on two logarithmic axes as SVG, by hand: no plotting library for one picture.

Readable on a light and on a dark page: grey axes, no background, colours of medium brightness.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

import msgspec

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 34, 34, 62
COLOURS = ("#2a7de1", "#d9822b", "#2e9e5b", "#9a5bd0", "#c2405a")
INK = "#7a7f87"
LEGEND_STEP = 110


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One curve: points above zero, from left to right."""

    name: str
    points: Sequence[tuple[float, float]]


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]


def render_svg(panels: Sequence[Panel]) -> str:
    """The panels one below the other."""
    height = HEIGHT * len(panels)
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    font = f'font-family="sans-serif" font-size="11" fill="{INK}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>']
    for number, panel in enumerate(panels):
        lines.append(f'<g transform="translate(0 {number * HEIGHT})">')
        lines += _panel(panel)
        lines.append("</g>")
    return "\n".join([*lines, "</svg>"]) + "\n"


class _Axis:
    """A logarithmic axis over whole decades.

    Attributes:
        decades: exponents of its ticks.
    """

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low = math.floor(math.log10(min(values)))
        high = max(low + 1, math.ceil(math.log10(max(values))))
        self.decades = range(low, high + 1)
        self._start = start
        self._scale = (end - start) / (high - low)
        self._low = low

    def place(self, value: float) -> float:
        return self._start + (math.log10(value) - self._low) * self._scale


def _panel(panel: Panel) -> Iterator[str]:
    points = [point for series in panel.series for point in series.points]
    yield f'<text x="{LEFT}" y="18" font-size="13" font-weight="bold">{escape(panel.title)}</text>'
    if not points:
        yield f'<text x="{LEFT}" y="{HEIGHT / 2}">not measured</text>'
        return
    across = _Axis([x for x, _ in points], LEFT, WIDTH - RIGHT)
    up = _Axis([y for _, y in points], HEIGHT - BOTTOM, TOP)
    yield from _grid(across, up)
    yield f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 30}" text-anchor="end">{escape(panel.x_label)}</text>'
    yield f'<text x="12" y="{TOP}" transform="rotate(-90 12 {TOP})" text-anchor="end">{escape(panel.y_label)}</text>'
    for number, series in enumerate(panel.series):
        yield from _curve(series, number, across, up)


def _grid(across: _Axis, up: _Axis) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for decade in across.decades:
        x = across.place(10.0**decade)
        yield f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="{INK}" stroke-opacity="0.25"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{_power(decade)}</text>'
    for decade in up.decades:
        y = up.place(10.0**decade)
        yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{INK}" stroke-opacity="0.25"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_power(decade)}</text>'


def _power(decade: int) -> str:
    return f"{10**decade:,}" if decade >= 0 else f"{10.0**decade:g}"


def _curve(series: Series, number: int, across: _Axis, up: _Axis) -> Iterator[str]:
    colour = COLOURS[number % len(COLOURS)]
    places = [(across.place(x), up.place(y)) for x, y in series.points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    at = LEFT + number * LEGEND_STEP
    yield f'<rect x="{at}" y="{HEIGHT - 20}" width="10" height="10" fill="{colour}"/>'
    yield f'<text x="{at + 14}" y="{HEIGHT - 11}">{escape(series.name)}</text>'
