"""The picture of `python -m model.explain --plot`: clicks × interests as a heat map, the recalled items beside it."""

from __future__ import annotations

import bisect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from model.explanation.explain import Explanation, Recalled
from model.explanation.text import LEAST, Names, colour, cosines, name_of, summary, title_of
from model.figures import DPI, save

#: All lengths are in pixels. The picture grows downwards when lists are long.
WIDTH, HEIGHT = 1200, 800
MARGIN, ROW, FONT = 24, 20, 12.5
#: Where the panels begin, the width of the left ones, and the left edge of the right ones.
TOP, LEFT, HALF = 76, 548, 616
#: Largest cell of the heat map, the width from which it holds a number, and the least width of an item's name.
CELL, NUMBER, NAME = (64, 26), 30, 230
#: Widths of an item's score and of its mark.
SCORE, MARK = 52, 40
#: Items that were clicked next and are listed, and the interests shown that recall one.
TARGETS, BADGES = 8, 10
INK, PALE, FOUND = "#222222", "#757575", "#FFF1B8"


def plot_explanation(explanation: Explanation, names: Names, path: Path) -> None:
    """Draws one user into a file.

    Raises:
        EvaluationError: the file cannot be written.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a script that the font lacks is drawn as boxes
        save(draw(explanation, names), path)


def draw(explanation: Explanation, names: Names) -> Figure:
    """The picture, `WIDTH` wide and at least `HEIGHT` high."""
    K, n = len(explanation.recalled), max(map(len, explanation.recalled))
    block = ROW * (n + 1) + ROW // 2
    targets = min(len(explanation.targets), TARGETS + 1)
    left = ROW * (len(explanation.clicks) + 1) + (ROW * (targets + 1) + ROW // 2 if targets else 0)
    height = max(HEIGHT, TOP + max(left, block * ((K + 1) // 2 + 1)) + MARGIN)
    sheet = _Sheet(height)
    sheet.text(MARGIN, 28, WIDTH - 2 * MARGIN, f"User {explanation.user}: clicks, interests, recalled items", size=17)
    sheet.text(MARGIN, 52, WIDTH - 2 * MARGIN, f"{summary(explanation)}   ·   {cosines(explanation)}", colour=PALE)
    bottom = height - MARGIN - (left - ROW * (len(explanation.clicks) + 1))
    below = _heat_map(sheet, explanation, names, TOP, bottom)
    _targets(sheet, explanation, names, below + ROW // 2)
    columns = min(K, 2)
    width = (WIDTH - MARGIN - HALF - ROW * (columns - 1)) // columns
    for interest, recalled in enumerate(explanation.recalled):
        place = HALF + (width + ROW) * (interest % 2), TOP + block * (interest // 2)
        note = f"strongest for {explanation.fed_by(interest)} of {len(explanation.clicks)} clicks"
        sheet.bar(*place, width, f"interest {interest}", note, colour(interest))
        _items(sheet, *place, width, recalled, names)
    place = HALF, TOP + block * ((K + 1) // 2)
    sheet.bar(*place, WIDTH - MARGIN - HALF, f"merged: the best {len(explanation.merged)} of all interests", "", INK)
    _items(sheet, *place, WIDTH - MARGIN - HALF, explanation.merged, names, numbered=True)
    return sheet.figure


def _heat_map(sheet: _Sheet, explanation: Explanation, names: Names, top: int, bottom: int) -> int:
    """Between `top` and at most `bottom`; returns where it ends."""
    K, clicks = len(explanation.recalled), explanation.clicks
    width = min(CELL[0], (LEFT - NAME) // K)
    height = min(CELL[1], (bottom - top - ROW) // len(clicks))
    begin = MARGIN + LEFT - K * width
    sheet.bar(MARGIN, top, begin - MARGIN - 1, "clicks, newest first", "% of interest", INK)
    for interest in range(K):
        x = begin + interest * width
        sheet.box(x, top, width - 1, ROW - 1, colour(interest))
        sheet.text(x + width / 2, top + ROW / 2, width, str(interest), colour=_on(colour(interest)), align="center")
    largest = max(share for click in clicks for share in click.shares)
    for row, click in enumerate(clicks):
        y = top + ROW + row * height
        sheet.text(MARGIN, y + height / 2, begin - MARGIN - 8, title_of(click.item, names))
        for interest, share in enumerate(click.shares):
            shade = _blend(colour(interest), share / largest)
            x, feeds = begin + interest * width, interest == click.feeds
            sheet.box(x, y, width - 1, height - 1, shade)
            if width >= NUMBER and share >= LEAST:
                number = f"{share:.0%}".rstrip("%")
                sheet.text(x + width / 2, y + height / 2, width, number, colour=_on(shade), align="center", bold=feeds)
    return top + ROW + len(clicks) * height


def _targets(sheet: _Sheet, explanation: Explanation, names: Names, top: int) -> None:
    """What was clicked next, and which interests recall it."""
    if not explanation.targets:
        return
    total, found = len(explanation.targets), sum(map(bool, map(explanation.recalled_by, explanation.targets)))
    sheet.bar(MARGIN, top, LEFT, "✓ clicked next", f"{found} of {total} recalled", INK)
    for row, item in enumerate(explanation.targets[:TARGETS], 1):
        brought = explanation.recalled_by(item)[:BADGES]
        y = top + row * ROW
        for place, interest in enumerate(reversed(brought), 1):
            sheet.badge(MARGIN + LEFT - place * ROW, y, interest)
        room = LEFT - ROW * len(brought) - 8
        sheet.text(MARGIN, y + ROW / 2, room, title_of(item, names), bold=bool(brought))
    if total > TARGETS:
        sheet.text(MARGIN, top + ROW * (TARGETS + 1.5), LEFT, f"… and {total - TARGETS:,} more", colour=PALE)


def _items(
    sheet: _Sheet, x: int, top: int, width: int, recalled: Sequence[Recalled], names: Names, *, numbered: bool = False
) -> None:
    """Rows below a bar at `top`: name, mark, score, and if `numbered` the interest in front."""
    for row, one in enumerate(recalled, 1):
        y = top + row * ROW
        ink = PALE if one.seen and not one.hit else INK
        if one.hit:
            sheet.box(x, y, width, ROW - 1, FOUND)
        if numbered:
            sheet.badge(x, y, one.interest)
        begin = x + (ROW + 6 if numbered else 4)
        mark = "✓" if one.hit else "seen" if one.seen else ""
        end: float = x + width - SCORE
        end -= sheet.text(end, y + ROW / 2, MARK, mark, colour=ink, bold=one.hit, align="right")
        title = (title_of if numbered else name_of)(one.item, names)  # short lists stand in narrow columns
        sheet.text(begin, y + ROW / 2, end - begin - 8, title, colour=ink, bold=one.hit)
        sheet.text(x + width - 4, y + ROW / 2, SCORE, f"{one.score:.2f}", colour=ink, align="right")


@dataclass
class _Sheet:
    """A page on which one unit is one pixel, counted from the upper left corner."""

    height: int
    figure: Figure = field(init=False)
    axes: Axes = field(init=False)

    def __post_init__(self) -> None:
        self.figure = Figure(figsize=(WIDTH / DPI, self.height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(self.height, 0))
        self.axes.set_axis_off()

    def text(
        self,
        x: float,
        y: float,
        width: float,
        text: str,
        *,
        size: float = FONT,
        colour: str = INK,
        bold: bool = False,
        align: str = "left",
    ) -> float:
        """Centred at the height `y`; cut with … where it is wider than `width`. Returns the width that it takes."""
        weight, points = "bold" if bold else "normal", size * 72 / DPI
        shown = self.axes.text(x, y, text, ha=align, va="center_baseline", color=colour, weight=weight, size=points)
        shown.set_parse_math(False)
        if _width(shown) > width:
            # As many characters as fit with … behind them; a single one that is too wide vanishes.
            fits = bisect.bisect_right(range(1, len(text)), width, key=lambda end: _width(shown, text[:end] + "…"))
            shown.set_text(text[:fits].rstrip() + "…" if fits else "")
        return _width(shown)

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self.axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, linewidth=0))

    def bar(self, x: float, y: float, width: float, title: str, note: str, colour: str) -> None:
        """The head of a panel."""
        self.box(x, y, width, ROW - 1, colour)
        used = self.text(x + 4, y + ROW / 2, width - 8, title, colour=_on(colour), bold=True)
        self.text(x + width - 4, y + ROW / 2, width - used - 16, note, colour=_on(colour), align="right")

    def badge(self, x: float, y: float, interest: int) -> None:
        self.box(x, y + 1, ROW - 2, ROW - 3, colour(interest))
        self.text(x + ROW / 2 - 1, y + ROW / 2, ROW, str(interest), colour=_on(colour(interest)), align="center")


def _width(shown: Text, text: str | None = None) -> float:
    """Of a text, or of another one in its place, which it then shows."""
    if text is not None:
        shown.set_text(text)
    return shown.get_window_extent().width


def _blend(colour: str, fraction: float) -> str:
    """From white to the colour."""
    parts = (round(255 * (1 - fraction * (1 - part))) for part in to_rgb(colour))
    return "#" + "".join(f"{part:02X}" for part in parts)


def _on(background: str) -> str:
    """Black or white, whichever is easier to read; weights of ITU-R BT.601."""
    red, green, blue = to_rgb(background)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"
