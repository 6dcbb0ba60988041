"""The audit of the histories: every record in the changelog, older ones included, is recomputed from the clicks.

Older records count because a lost click leaves the window after `history.length` more: the newest record would not
show it. The record written last counts because compaction keeps that one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from streams.history import CorruptHistoryError, History, newer_record
from streams.ports import Message
from streams.tools.audit_clicks import AuditedClicks, User

Verdict = Literal["equal", "other length", "different"]


@dataclass(frozen=True, slots=True)
class AuditedHistories:
    """The changelog; see `streams.tools.audit_report.AuditReport`."""

    equal: int
    of_other_length: int
    missing: int
    different: int
    overwritten: int
    fences_foreign: int
    foreign: int


class _Changelog:
    """The records of the changelog, in order: the newest and the last one of each user, and the wrong ones."""

    def __init__(self, clicks: AuditedClicks, length: int, shortest: int) -> None:
        self.newest: dict[User, bytes] = {}
        self.last: dict[User, bytes] = {}
        self.different: set[User] = set()
        self.of_other_length = self.fences_foreign = self.foreign = 0
        self._clicks = clicks
        self._length = length
        self._shortest = shortest

    def add(self, message: Message) -> None:
        if message.key is None:
            self.foreign += 1
            return
        user = (message.partition, message.key)
        if message.value is None:  # it removes the user's history, so earlier records do not count
            self.last.pop(user, None)
            self.newest.pop(user, None)
            return
        try:
            history = History.from_bytes(message.value)
        except CorruptHistoryError:
            self.foreign += 1
            if user in self.newest:
                self.last[user] = message.value  # compaction keeps it
            return
        self.last[user] = message.value
        self.newest[user] = newer_record(self.newest.get(user, message.value), message.value)
        self.fences_foreign += history.partition != message.partition
        verdict = self._verdict(user, history)
        self.of_other_length += verdict == "other length"
        if verdict == "different":
            self.different.add(user)

    def _verdict(self, user: User, history: History) -> Verdict:
        if history.offset < self._clicks.begins.get(user[0], 0):
            return "equal"  # retention has deleted its clicks: nothing to compare
        clicks = self._clicks.by_user.get(user, [])
        complete = self._clicks.complete(user[0])
        return compare(history, clicks, self._length, self._shortest, complete=complete)


def audit_histories(
    changelog: Iterable[Message], clicks: AuditedClicks, length: int, shortest: int
) -> AuditedHistories:
    """Audit the changelog of the histories.

    Args:
        changelog: its messages, in order within their partitions.
        clicks: the clicks.
        length: `history.length`.
        shortest: the lowest `history.length` with which a worker starts: the number of clicks that the model reads.
    """
    found = _Changelog(clicks, length, shortest)
    for message in changelog:
        found.add(message)
    different = found.different
    for user in clicks.by_user.keys() & found.newest.keys():
        if History.from_bytes(found.newest[user]).offset < clicks.by_user[user][-1][0]:
            different.add(user)
    return AuditedHistories(
        equal=len(found.newest.keys() - different),
        of_other_length=found.of_other_length,
        missing=len(clicks.by_user.keys() - found.newest.keys()),
        different=len(different),
        overwritten=sum(found.last[user] != record for user, record in found.newest.items()),
        fences_foreign=found.fences_foreign,
        foreign=found.foreign,
    )


def compare(
    history: History, clicks: Sequence[tuple[int, int]], length: int, shortest: int, *, complete: bool
) -> Verdict:
    """Compare a history with the user's clicks up to its fence.

    Args:
        history: the record.
        clicks: (offset, item id) of the user's clicks, in order.
        length: clicks kept of each user, as configured now.
        shortest: the least that may have been configured.
        complete: the first click is among `clicks`; otherwise only the newest ones are compared.
    """
    count = bisect_right(clicks, history.offset, key=lambda click: click[0])
    if not count or clicks[count - 1][0] != history.offset:
        return "different"
    items, n = history.items.tolist(), len(history.items)
    expected = [item for _, item in clicks[max(0, count - n) : count]]
    if not n or items[n - len(expected) :] != expected:
        return "different"
    if not complete and len(expected) < n:
        return "equal" if n <= length else "other length"
    if len(expected) < n:
        return "different"  # more items than clicks
    if n == min(count, length):
        return "equal"
    return "other length" if n > length or n >= shortest else "different"
