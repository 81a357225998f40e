"""Pictures as SVG, with nothing but the standard library."""

import html
import math

COLORS = ("#1f6feb", "#d1622b", "#3a8f4d", "#8a5cb8", "#6e7781", "#b8860b", "#c2417c")
INK = "#24292f"
GRID = "#d8dee4"
FONT = 'font-family="sans-serif" font-size="12"'


def _document(width, height, parts):
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" {FONT}>\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _text(x, y, text, anchor="start", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}" {extra}>{html.escape(text)}</text>'


def _line(x1, y1, x2, y2, color=GRID, width=1.0):
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{color}" stroke-width="{width}"/>'
    )


def _ticks(low, high):
    """Round numbers on a logarithmic axis."""
    decades = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    steps = (1, 2, 5) if high / low < 200 else (1,)
    return [decade * step for decade in decades for step in steps if low <= decade * step <= high]


def number(value):
    """Three digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def bars(title, unit, rows, goal=None):
    """Horizontal bars on a logarithmic axis: rows of (label, quartile, median, quartile)."""
    # A character of the font is 6.5 wide, more or less.
    left, right, top, step = 20 + 6.5 * max(len(row[0]) for row in rows), 90, 46, 24
    width, height = 820, top + step * len(rows) + 40
    low = min(row[1] for row in rows) * 0.8
    high = max(row[3] for row in rows) * 1.1
    bottom = height - 36

    def x(value):
        return left + (width - left - right) * math.log(value / low) / math.log(high / low)

    parts = [_text(12, 22, title, extra='font-weight="bold"')]
    for tick in _ticks(low, high):
        parts += [_line(x(tick), top - 8, x(tick), bottom), _text(x(tick), bottom + 16, number(tick), "middle")]
    parts.append(_text(left, bottom + 32, unit))
    if goal:
        parts += [_line(x(goal), top - 8, x(goal), bottom, COLORS[2], 2), _text(x(goal) + 4, top - 10, f"goal {goal:g}")]
    for index, (label, first, median, third) in enumerate(rows):
        y = top + step * index + step / 2
        color = COLORS[1] if label.startswith("nfs-hostchange") else COLORS[0]
        parts += [
            _text(left - 8, y + 4, label, "end"),
            f'<rect x="{left:.1f}" y="{y - 7:.1f}" width="{x(median) - left:.1f}" height="14" fill="{color}"/>',
            _line(x(first), y, x(third), y, INK, 2),
            _text(x(third) + 6, y + 4, number(median)),
        ]
    return _document(width, height, parts)


def lines(title, x_unit, y_unit, series):
    """Lines on two logarithmic axes: series of (label, [(x, y)...])."""
    left, right, top = 80, 230, 46
    width, height = 820, 400
    bottom = height - 50
    xs = [point[0] for _, points in series for point in points]
    ys = [point[1] for _, points in series for point in points]
    x_low, x_high = min(xs) / 1.2, max(xs) * 1.2
    y_low, y_high = min(ys) / 1.5, max(ys) * 1.5

    def x(value):
        return left + (width - left - right) * math.log(value / x_low) / math.log(x_high / x_low)

    def y(value):
        return bottom - (bottom - top) * math.log(value / y_low) / math.log(y_high / y_low)

    parts = [_text(12, 22, title, extra='font-weight="bold"')]
    for tick in _ticks(x_low, x_high):
        parts += [_line(x(tick), top, x(tick), bottom), _text(x(tick), bottom + 16, number(tick), "middle")]
    for tick in _ticks(y_low, y_high):
        parts += [_line(left, y(tick), width - right, y(tick)), _text(left - 6, y(tick) + 4, number(tick), "end")]
    parts += [_text((left + width - right) / 2, height - 12, x_unit, "middle"), _text(12, top - 8, y_unit)]
    # The labels at the lines' ends, moved apart where they would overlap.
    ends = sorted((y(points[-1][1]), index) for index, (_, points) in enumerate(series))
    places = {}
    lowest = -math.inf
    for place, index in ends:
        lowest = max(place, lowest + 15)
        places[index] = lowest
    for index, (label, points) in enumerate(series):
        color = COLORS[index % len(COLORS)]
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{color}"/>' for a, b in points]
        parts.append(_text(width - right + 10, places[index] + 4, label, extra=f'style="fill:{color}"'))
    return _document(width, height, parts)
