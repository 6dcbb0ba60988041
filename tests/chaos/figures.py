"""Figures of a chaos scenario, the rules they must meet, and the table of the documentation."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import EXIT_TRANSIENT
from streams.tools.audit_report import AuditReport
from tests.chaos.fleet import Shutdown

#: Exit status of a worker that was killed.
KILLED = -signal.SIGKILL
#: Allowed exit statuses of workers that were not stopped: killed, or the retry budget was spent.
EXPECTED = {KILLED, EXIT_TRANSIENT}
#: Seconds after SIGTERM within which a worker must exit.
SHUTDOWN_LIMIT_S = 5.0


@dataclass(frozen=True)
class Figures:
    """Counts and times of one scenario.

    Attributes:
        clicks: messages written to the click topic during the scenario.
        clicks_missing: messages acknowledged by Kafka since the start of the round that are not on the topic.
        ends: exit statuses of workers that were not stopped; -9 = killed.
        shutdowns: exits of workers that were stopped.
        repeats: recommendations that repeat the source of another one.
        out_of_order: recommendations written after one for a newer click of the same user.
        longest_pause: seconds between two recommendations for clicks of one partition, by the broker's clock.
        catch_up: seconds from the end of the traffic until the audit balanced.
        items_different: published items whose vector in Milvus is not the one published last, and poisonous ones there.
        dead_letters_missing: messages since the start of the round that must be dead letters, and are none, or have
            another reason.
        report: the audit of everything since the start of the round.
        unmet: what the scenario requires, and did not see: its fault did not happen, or had other consequences.
    """

    scenario: str
    clicks: int
    clicks_missing: int
    ends: list[int]
    shutdowns: list[Shutdown]
    repeats: int
    out_of_order: int
    longest_pause: float
    catch_up: float
    items_different: int
    dead_letters_missing: int
    report: AuditReport
    unmet: str = ""

    @property
    def ok(self) -> bool:
        return not self.wrong

    @property
    def wrong(self) -> list[str]:
        """Broken rules, as text."""
        unexpected = sorted(set(self.ends) - EXPECTED)
        unclean = sorted({shutdown.status for shutdown in self.shutdowns} - {0})
        slowest = max((shutdown.seconds for shutdown in self.shutdowns), default=0.0)
        rules = [
            (self.unmet, f"the scenario failed: {self.unmet}"),
            (not self.report.ok, f"the audit failed:\n{self.report.to_text()}"),
            (self.items_different, f"items with a wrong vector in Milvus: {self.items_different}"),
            (
                self.dead_letters_missing,
                f"poisonous messages without a dead letter of their reason: {self.dead_letters_missing}",
            ),
            (self.clicks_missing, f"clicks acknowledged by Kafka that are not on the topic: {self.clicks_missing}"),
            (unexpected, f"workers exited with {unexpected}, which no fault of the scenario explains"),
            (unclean, f"workers exited with {unclean} after SIGTERM instead of 0"),
            (
                slowest >= SHUTDOWN_LIMIT_S,
                f"a worker exited {slowest:.1f} s after SIGTERM; the limit is {SHUTDOWN_LIMIT_S:.0f} s",
            ),
        ]
        return [text for broken, text in rules if broken]


def table(figures: Sequence[Figures]) -> str:
    """Return the documentation's table in Markdown: for each scenario the sums of its rounds, and the longest pause."""
    lines = ["| scenario | clicks | kills | exits | repeats | out of order | pause |", "|---|---|---|---|---|---|---|"]
    for name in dict.fromkeys(f.scenario for f in figures):
        rounds = [f for f in figures if f.scenario == name]
        ends = [end for f in rounds for end in f.ends]
        kills = ends.count(KILLED)
        lines.append(
            f"| {name} | {sum(f.clicks for f in rounds):,} | {kills} | {len(ends) - kills} "
            f"| {sum(f.repeats for f in rounds):,} | {sum(f.out_of_order for f in rounds):,} "
            f"| {max(f.longest_pause for f in rounds):.1f} s |"
        )
    seconds = [shutdown.seconds for f in figures for shutdown in f.shutdowns]
    slowest = f"; longest from SIGTERM to exit {max(seconds):.1f} s" if seconds else ""
    clicks, wrong = sum(f.clicks for f in figures), sum(not f.ok for f in figures)
    return "\n".join([*lines, "", f"{clicks:,} clicks in {len(figures)} scenarios, {wrong} of them wrong{slowest}"])
