"""Output of `python -m model.explain`: tables, or a JSON document."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from configs.text import count
from model.explanation.explain import Explanation, Recalled
from model.explanation.names import ItemName, ItemNames

#: Colours of interests 0, 1, …, in text and picture; repeated if there are more interests. They are the
#: palette of Okabe and Ito, which colour-blind people can distinguish, without its yellow, which is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
#: Length of the largest share's bar; each character has eight steps.
BAR_CHARACTERS = 3
#: Smaller shares are not shown: they would be rounded to 0 %.
MIN_SHARE = 0.005
_BLOCKS = " ▏▎▍▌▋▊▉█"


def colour(interest: int) -> str:
    """Return the colour of an interest."""
    return COLOURS[interest % len(COLOURS)]


def title_of(item: int, names: ItemNames) -> str:
    """Return name and category of an item, or its id if it has no name."""
    return str(_label(item, names)) or f"item {item}"


def name_of(item: int, names: ItemNames) -> str:
    """Return the name of an item without its category, or its id if it has no name."""
    return names[item].name if item in names else f"item {item}"


def mark(one: Recalled) -> str:
    """Return the words that are shown beside a recalled item: seen, clicked next."""
    return ", ".join(word for word, holds in (("seen", one.seen), ("clicked next", one.hit)) if holds)


def summary(explanation: Explanation) -> str:
    """Describe how much of the history the model reads."""
    read, known = len(explanation.clicks), explanation.history - len(explanation.unknown)
    newest = "" if read == known else "newest "
    left_out = f"; {len(explanation.unknown):,} on items that it does not know" if explanation.unknown else ""
    return (
        f"model {explanation.model_version} reads the {newest}{read} of {count(explanation.history, 'click')}{left_out}"
    )


def cosines(explanation: Explanation) -> str:
    """Format the cosine of each pair of interests, in one line."""
    pairs = combinations(range(len(explanation.cosines)), 2)
    shown = "  ".join(f"{a}–{b} {explanation.cosines[a][b]:.2f}" for a, b in pairs)
    return f"interest cosines: {shown}" if shown else "one interest"


def document(explanation: Explanation, names: ItemNames) -> dict[str, Any]:
    """Return the explanation as JSON values, with the names of the items in it (`model.explanation.explain`)."""
    lists = [*explanation.recalled, explanation.merged]
    items = {one.item for one in explanation.clicks} | {one.item for part in lists for one in part}
    occurring = sorted(items | {*explanation.targets, *explanation.unknown})
    return dataclasses.asdict(explanation) | {
        "names": {str(item): names[item]._asdict() for item in occurring if item in names}
    }


def tables(explanation: Explanation, names: ItemNames) -> list[Table | Text]:
    """Return tables of the clicks, of each interest's list, of the merged list and of the items clicked next."""
    title = "clicks, newest first, and their share of each interest's routing weights"
    shown: list[Table | Text] = [Text(f"user {explanation.user}: {summary(explanation)}")]
    shown += [_title(title), _clicks(explanation, names)]
    for interest, recalled in enumerate(explanation.recalled):
        fed = f" is the strongest for {count(explanation.fed_by(interest), 'click')} and recalls"
        shown += [_title(f"■ interest {interest}", colour(interest), fed), _items(recalled, names)]
    title = f"merged: the best {len(explanation.merged)}, by the score that the worker ranks by"
    shown += [_title(title), _items(explanation.merged, names, with_interest=True)]
    if explanation.targets:
        shown += [_title("clicked next"), _targets(explanation, names)]
    return [*shown, Text("\n" + cosines(explanation))]


def _title(text: str, style: str = "", rest: str = "") -> Text:
    return Text.assemble("\n", (text, f"bold {style}"), rest)


def _clicks(explanation: Explanation, names: ItemNames) -> Table:
    table = _table(names)
    table.add_column("feeds", justify="right", no_wrap=True)
    for interest in range(len(explanation.cosines)):
        table.add_column(Text(f"{interest:3}", f"bold {colour(interest)}"), no_wrap=True)
    largest = max(share for click in explanation.clicks for share in click.shares)
    for click in explanation.clicks:
        cells = [
            Text(_cell(share, largest), f"{'bold' if k == click.feeds else 'dim'} {colour(k)}")
            for k, share in enumerate(click.shares)
        ]
        feeds = Text(str(click.feeds), f"bold {colour(click.feeds)}")
        table.add_row(str(click.item), _label(click.item, names), feeds, *cells)
    return table


def _items(recalled: Sequence[Recalled], names: ItemNames, *, with_interest: bool = False) -> Table:
    table = _table(names)
    for header in ["score", *(["interest"] if with_interest else [])]:
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for one in recalled:
        interest = [Text(str(one.interest), f"bold {colour(one.interest)}")] if with_interest else []
        style = "bold" if one.hit else "dim" if one.seen else ""
        name = _label(one.item, names)
        name.stylize(style)
        table.add_row(str(one.item), name, f"{one.score:.3f}", *interest, Text(mark(one), style))
    return table


def _targets(explanation: Explanation, names: ItemNames) -> Table:
    table = _table(names)
    table.add_column("recalled by", no_wrap=True)
    for item in explanation.targets:
        interests = explanation.recalled_by(item)
        numbers = Text(", ").join(Text(str(interest), f"bold {colour(interest)}") for interest in interests)
        table.add_row(str(item), _label(item, names), numbers)
    return table


def _table(names: ItemNames) -> Table:
    """Return a table with columns for ids and names; names take the remaining width, and are cut with …"""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), expand=bool(names))
    table.add_column("item", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1 if names else None)
    return table


def _label(item: int, names: ItemNames) -> Text:
    """Return name and category; empty without a name, because the id is beside it."""
    name, category = names.get(item, ItemName(""))
    return Text.assemble(name, (f" · {category}" if category else "", "dim"))


def _cell(share: float, largest: float) -> str:
    """Format a share as percent and a bar; shares below `MIN_SHARE` are empty."""
    steps = round(share / largest * BAR_CHARACTERS * 8)
    bar = (_BLOCKS[8] * (steps // 8) + _BLOCKS[steps % 8]).rstrip()
    return f"{share:4.0%} {bar}" if share >= MIN_SHARE else ""
