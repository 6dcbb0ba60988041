"""The display of the demo: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from embedded.demo.messages import BROKEN_MESSAGES
from embedded.demo.scoreboard import Scoreboard, percentile
from streams.recall.hit_rate import CUTOFF

#: Seconds between plain lines.
_LINE_INTERVAL_S = 5.0
#: Number of recommended items that are shown for the story's user.
_SHOWN = 10

Naming = Callable[[int], str]


class View:
    """Shows a scoreboard while a block runs.

    Args:
        console: for output; a terminal gets the live table.
        board: the scoreboard.
        total: clicks expected in total.
        name: item id → text.
    """

    def __init__(self, console: Console, board: Scoreboard, total: int, name: Naming) -> None:
        self._console = console
        self._board = board
        self._total = total
        self._name = name
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._started = self._next_line = time.monotonic()

    def __enter__(self) -> View:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self) -> None:
        """Show the current state; cheap enough to call often."""
        if self._live is not None:
            self._live.update(Group(self._figures(), self._story()))
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_INTERVAL_S
            self._console.print(self.line(), soft_wrap=True)

    def line(self) -> str:
        """Return the state in one line."""
        board = self._board
        clicks, recommendations = board.recent.per_second()
        ours, popular = board.hit_rate.rates()
        return (
            f"t={time.monotonic() - self._started:.0f}s clicks {board.clicks:,}/{self._total:,} ({clicks:.0f}/s) "
            f"recommendations {board.recommendations:,} ({recommendations:.0f}/s) "
            f"latency p50 {percentile(board.latencies_s, 50)} p99 {percentile(board.latencies_s, 99)} "
            f"hit@{CUTOFF} {ours:.1%} (popular {popular:.1%}) "
            f"new item searchable p50 {percentile(board.new_items.searchable_s, 50)} dead letters {board.dead_letters}"
        )

    def _figures(self) -> Table:
        board = self._board
        clicks, recommendations = board.recent.per_second()
        ours, popular = board.hit_rate.rates()
        table = Table(show_header=False, box=None, padding=(0, 2))
        table.add_row("clicks in", f"{board.clicks:,} of {self._total:,}", f"{clicks:,.0f} /s")
        table.add_row("recommendations out", f"{board.recommendations:,}", f"{recommendations:,.0f} /s")
        table.add_row(
            "click → recommendation",
            f"p50 {percentile(board.latencies_s, 50)}",
            f"p99 {percentile(board.latencies_s, 99)}",
        )
        table.add_row(f"already recommended (hit@{CUTOFF})", f"[bold]{ours:.1%}[/]", f"popular items: {popular:.1%}")
        table.add_row(
            f"new items ({len(board.new_items.searchable_s)}) searchable after",
            f"p50 {percentile(board.new_items.searchable_s, 50)}",
            f"max {percentile(board.new_items.searchable_s, 100)}",
        )
        table.add_row("new items recommended", f"{len(board.new_items.first_recommended_s)}", "")
        table.add_row(
            "dead letters", f"{board.dead_letters}", f"{len(BROKEN_MESSAGES)} broken messages are sent on purpose"
        )
        return table

    def _story(self) -> Panel:
        story = self._board.story
        clicks = " → ".join(self._name(item) for item in story.clicks) or "no click yet"
        shown = Text()
        for item in story.recommended[:_SHOWN]:
            new = item not in story.recommended_before
            shown.append(self._name(item) + "  ", style="bold green" if new and story.recommended_before else "")
        return Panel(
            Group(Text(f"last clicks      {clicks}"), Text("recommended      ").append_text(shown)),
            title=f"user {story.key.decode()} (green: new since the last click)",
            title_align="left",
        )
