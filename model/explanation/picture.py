"""The picture of `python -m model.explain --plot`: a heat map of clicks × interests beside the recalled items."""

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

from configs.text import count
from model.explanation.explain import Explanation, Recalled
from model.explanation.names import ItemNames
from model.explanation.text import MIN_SHARE, colour, cosines, name_of, summary, title_of
from model.figures import DPI, save_figure

#: All lengths are in pixels, font sizes included. The picture grows downwards if lists are long.
WIDTH, HEIGHT = 1200, 800
#: Margin of the page, height of a row of text, and size of its font.
MARGIN, ROW, FONT_SIZE = 24, 20, 12.5
#: Top edge of the panels, width of the panels on the left, and left edge of the panels on the right.
PANELS_TOP, LEFT_WIDTH, RIGHT_X = 76, 548, 616
#: Largest cell of the heat map, smallest width of a cell with a number, and smallest width of an item's name.
MAX_CELL, MIN_NUMBER_WIDTH, MIN_NAME_WIDTH = (64, 26), 30, 230
#: Widths of an item's score and mark.
SCORE_WIDTH, MARK_WIDTH = 52, 40
#: Largest number of items listed as clicked next, and of interests shown for each.
MAX_TARGETS, MAX_BADGES = 8, 10
#: Colours of text, of less important text, and behind items that were clicked next.
INK, PALE, HIT_COLOUR = "#222222", "#757575", "#FFF1B8"


def plot_explanation(explanation: Explanation, names: ItemNames, path: Path) -> None:
    """Draw the explanation of one user into a file.

    Raises:
        InputError: the file cannot be written.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # characters that the font lacks are drawn as boxes
        save_figure(draw(explanation, names), path)


def draw(explanation: Explanation, names: ItemNames) -> Figure:
    """Draw the picture, `WIDTH` wide and at least `HEIGHT` high."""
    K, n = len(explanation.recalled), max(map(len, explanation.recalled))
    block = ROW * (n + 1) + ROW // 2
    targets = min(len(explanation.targets), MAX_TARGETS + 1)
    left = ROW * (len(explanation.clicks) + 1) + (ROW * (targets + 1) + ROW // 2 if targets else 0)
    height = max(HEIGHT, PANELS_TOP + max(left, block * ((K + 1) // 2 + 1)) + MARGIN)
    sheet = _Sheet(height)
    sheet.text(MARGIN, 28, WIDTH - 2 * MARGIN, f"User {explanation.user}: clicks, interests, recalled items", size=17)
    sheet.text(MARGIN, 52, WIDTH - 2 * MARGIN, f"{summary(explanation)}   ·   {cosines(explanation)}", colour=PALE)
    bottom = height - MARGIN - (left - ROW * (len(explanation.clicks) + 1))
    below = _heat_map(sheet, explanation, names, PANELS_TOP, bottom)
    _targets(sheet, explanation, names, below + ROW // 2)
    columns = min(K, 2)
    width = (WIDTH - MARGIN - RIGHT_X - ROW * (columns - 1)) // columns
    for interest, recalled in enumerate(explanation.recalled):
        corner = RIGHT_X + (width + ROW) * (interest % 2), PANELS_TOP + block * (interest // 2)
        note = f"strongest for {explanation.fed_by(interest)} of {count(len(explanation.clicks), 'click')}"
        sheet.bar(*corner, width, f"interest {interest}", note, colour(interest))
        _items(sheet, *corner, width, recalled, names)
    corner = RIGHT_X, PANELS_TOP + block * ((K + 1) // 2)
    sheet.bar(
        *corner,
        WIDTH - MARGIN - RIGHT_X,
        f"merged: the best {len(explanation.merged)} of all interests",
        "",
        INK,
    )
    _items(sheet, *corner, WIDTH - MARGIN - RIGHT_X, explanation.merged, names, numbered=True)
    return sheet.figure


def _heat_map(sheet: _Sheet, explanation: Explanation, names: ItemNames, top: int, bottom: int) -> int:
    """Draw the heat map between `top` and at most `bottom`; return its lower edge."""
    K, clicks = len(explanation.recalled), explanation.clicks
    width = min(MAX_CELL[0], (LEFT_WIDTH - MIN_NAME_WIDTH) // K)
    height = min(MAX_CELL[1], (bottom - top - ROW) // len(clicks))
    begin = MARGIN + LEFT_WIDTH - K * width
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
            if width >= MIN_NUMBER_WIDTH and share >= MIN_SHARE:
                number = f"{share:.0%}".rstrip("%")
                sheet.text(x + width / 2, y + height / 2, width, number, colour=_on(shade), align="center", bold=feeds)
    return top + ROW + len(clicks) * height


def _targets(sheet: _Sheet, explanation: Explanation, names: ItemNames, top: int) -> None:
    """List the items clicked next, and the interests that recall them."""
    if not explanation.targets:
        return
    total, found = len(explanation.targets), sum(map(bool, map(explanation.recalled_by, explanation.targets)))
    sheet.bar(MARGIN, top, LEFT_WIDTH, "✓ clicked next", f"{found} of {total} recalled", INK)
    for row, item in enumerate(explanation.targets[:MAX_TARGETS], 1):
        interests = explanation.recalled_by(item)[:MAX_BADGES]
        y = top + row * ROW
        for column, interest in enumerate(reversed(interests), 1):
            sheet.badge(MARGIN + LEFT_WIDTH - column * ROW, y, interest)
        width = LEFT_WIDTH - ROW * len(interests) - 8
        sheet.text(MARGIN, y + ROW / 2, width, title_of(item, names), bold=bool(interests))
    if total > MAX_TARGETS:
        sheet.text(
            MARGIN,
            top + ROW * (MAX_TARGETS + 1.5),
            LEFT_WIDTH,
            f"… and {total - MAX_TARGETS:,} more",
            colour=PALE,
        )


def _items(
    sheet: _Sheet,
    x: int,
    top: int,
    width: int,
    recalled: Sequence[Recalled],
    names: ItemNames,
    *,
    numbered: bool = False,
) -> None:
    """Draw the rows below a bar at `top`: name, mark, score, and, if `numbered`, the interest in front."""
    for row, one in enumerate(recalled, 1):
        y = top + row * ROW
        ink = PALE if one.seen and not one.hit else INK
        if one.hit:
            sheet.box(x, y, width, ROW - 1, HIT_COLOUR)
        if numbered:
            sheet.badge(x, y, one.interest)
        begin = x + (ROW + 6 if numbered else 4)
        mark = "✓" if one.hit else "seen" if one.seen else ""
        end: float = x + width - SCORE_WIDTH
        end -= sheet.text(end, y + ROW / 2, MARK_WIDTH, mark, colour=ink, bold=one.hit, align="right")
        # The lists of single interests are in narrow columns, which have no room for categories.
        title = (title_of if numbered else name_of)(one.item, names)
        sheet.text(begin, y + ROW / 2, end - begin - 8, title, colour=ink, bold=one.hit)
        sheet.text(x + width - 4, y + ROW / 2, SCORE_WIDTH, f"{one.score:.2f}", colour=ink, align="right")


@dataclass
class _Sheet:
    """A page in pixels, with the origin in the upper left corner."""

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
        size: float = FONT_SIZE,
        colour: str = INK,
        bold: bool = False,
        align: str = "left",
    ) -> float:
        """Draw text centred at the height `y`, cut with … if it is wider than `width`; return its width."""
        weight, points = "bold" if bold else "normal", size * 72 / DPI
        shown = self.axes.text(x, y, text, ha=align, va="center_baseline", color=colour, weight=weight, size=points)
        shown.set_parse_math(False)
        if _width(shown) > width:
            # As many characters as fit together with …; no text if not even one fits.
            fits = bisect.bisect_right(range(1, len(text)), width, key=lambda end: _width(shown, text[:end] + "…"))
            shown.set_text(text[:fits].rstrip() + "…" if fits else "")
        return _width(shown)

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Draw a filled rectangle."""
        self.axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, linewidth=0))

    def bar(self, x: float, y: float, width: float, title: str, note: str, colour: str) -> None:
        """Draw the title bar of a panel."""
        self.box(x, y, width, ROW - 1, colour)
        used = self.text(x + 4, y + ROW / 2, width - 8, title, colour=_on(colour), bold=True)
        self.text(x + width - 4, y + ROW / 2, width - used - 16, note, colour=_on(colour), align="right")

    def badge(self, x: float, y: float, interest: int) -> None:
        """Draw the number of an interest on its colour."""
        self.box(x, y + 1, ROW - 2, ROW - 3, colour(interest))
        self.text(
            x + ROW / 2 - 1,
            y + ROW / 2,
            ROW,
            str(interest),
            colour=_on(colour(interest)),
            align="center",
        )


def _width(shown: Text, text: str | None = None) -> float:
    """Return the width of a text; if `text` is given, replace its content first."""
    if text is not None:
        shown.set_text(text)
    return shown.get_window_extent().width


def _blend(colour: str, fraction: float) -> str:
    """Blend from white (fraction 0) to the colour (1)."""
    parts = (round(255 * (1 - fraction * (1 - part))) for part in to_rgb(colour))
    return "#" + "".join(f"{part:02X}" for part in parts)


def _on(background: str) -> str:
    """Return black or white, whichever is easier to read on the background; weights of ITU-R BT.601."""
    red, green, blue = to_rgb(background)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"
