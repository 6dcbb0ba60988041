"""The result of an audit: its figures, and the verdict."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

#: Names of the figures that must be 0.
FINDINGS = (
    "unaccounted",
    "letters_unfounded",
    "letters_different",
    "clicks_removed_unread",
    "clicks_misplaced",
    "users_split",
    "lag_clicks",
    "histories_missing",
    "histories_different",
    "histories_overwritten",
    "fences_foreign",
    "users_stale",
    "answers_overtaken",
    "answers_unfounded",
    "answers_mislabelled",
    "answers_empty",
    "answers_short",
    "items_unaccounted",
    "lag_items",
    "rows_missing",
    "rows_stale",
    "rows_unfounded",
)


@dataclass(frozen=True, slots=True)
class AuditReport:  # more than 12 attributes: a figure each; their names are the keys of `audit --json`
    """Counts; those from `unaccounted` on must be 0 (`FINDINGS`).

    Attributes:
        clicks: messages on the click topic.
        clicks_deleted: clicks that retention has deleted; histories are compared as far as their clicks are retained.
        dead_letters: messages on the click topic that have a dead letter, as they must.
        users: users with at least one readable click.
        recommendations: messages on the recommendation topic; after a day, only the last one of each user.
        repeats: recommendations for a source that was answered before (at-least-once delivery).
        out_of_order: recommendations that follow one for a newer click of the same user.
        foreign: messages on the recommendation topic that are not recommendations: another program writes to it.
        changelog_foreign: messages on the changelog that are not history records: another program writes to it.
        without_candidates: users without a recommendation for their newest click whose items the artifact does not
            know. Not verified: such an item may have been published after training, either after the click, so that
            there was nothing to recommend, or before it, so that a recommendation was lost.
        histories_equal: users with changelog records, all of which equal the recomputed ones.
        items: items of this model on the item topic.
        histories_of_other_length: history records that are right for another `history.length`, which was configured
            when they were written.
        unverified: unreadable messages without a dead letter, and users without a recommendation for their newest
            click, so old that retention (`topics.retention_days`,
            `topics.recommendation_retention_days`) may have deleted it.
        unaccounted: unreadable clicks without a dead letter.
        letters_unfounded: dead letters of clicks that are readable or do not exist; also those of a click topic of this
            name that was deleted.
        letters_different: dead letters that have not kept the key and value of their click.
        clicks_removed_unread: clicks that retention has deleted before the worker committed them.
        clicks_misplaced: clicks in another partition than their key's (`topics.partitioner`) that are no dead letters.
        users_split: users with clicks in several partitions: their producers use different partitioners.
        lag_clicks: clicks that the worker has not committed: it has not caught up, or no worker runs.
        histories_missing, histories_different: users without a changelog record, or with one that is not as recomputed.
        histories_overwritten: users whose newest changelog record is followed by an older one, or a foreign message.
        fences_foreign: history records whose fence names another partition than that of the record.
        users_stale: users without a recommendation for their newest click.
        answers_overtaken: users whose newest recommendation is followed by an older one. After compaction, which leaves
            only the older one, they are stale.
        answers_unfounded: recommendations whose source is no click of the user.
        answers_mislabelled: recommendations whose key names another user than their value.
        answers_empty: recommendations without items.
        answers_short: recommendations with fewer items than `recall.catalogue_share` of the model's catalogue must
            yield, unless fewer were asked for.
        items_unaccounted: unreadable item messages without a dead letter.
        lag_items: item messages that the item worker has not committed.
        rows_missing, rows_stale: items without a row in Milvus, or with a row of an older message.
        rows_unfounded: rows of items that were never published, or were removed.

    `items`, and those from `items_unaccounted` on, are None if the items were not compared.
    """

    clicks: int
    clicks_deleted: int
    dead_letters: int
    users: int
    recommendations: int
    repeats: int
    out_of_order: int
    foreign: int
    changelog_foreign: int
    without_candidates: int
    histories_equal: int
    histories_of_other_length: int
    items: int | None
    unverified: int
    unaccounted: int
    letters_unfounded: int
    letters_different: int
    clicks_removed_unread: int
    clicks_misplaced: int
    users_split: int
    lag_clicks: int
    histories_missing: int
    histories_different: int
    histories_overwritten: int
    fences_foreign: int
    users_stale: int
    answers_overtaken: int
    answers_unfounded: int
    answers_mislabelled: int
    answers_empty: int
    answers_short: int
    items_unaccounted: int | None = None
    lag_items: int | None = None
    rows_missing: int | None = None
    rows_stale: int | None = None
    rows_unfounded: int | None = None

    @property
    def ok(self) -> bool:
        """True if all figures that must be 0 are."""
        return not self.findings

    @property
    def findings(self) -> dict[str, int]:
        """Name → figure, of those that must be 0 and are not."""
        return {name: count for name, count in dataclasses.asdict(self).items() if name in FINDINGS and count}

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self) | {"ok": self.ok})

    def to_text(self) -> str:
        counts = dataclasses.asdict(self)
        shown = {name: "not compared" if count is None else f"{count:,}" for name, count in counts.items()}
        lines = [f"{name.replace('_', ' '):26} {count:>12}" for name, count in shown.items()]
        if self.clicks_deleted:
            lines.append("retention has deleted the oldest clicks: what only they could show is not verified")
        if self.unverified:
            lines.append("retention may have deleted the dead letters or answers of old messages: not verified")
        if self.without_candidates:
            lines.append("users without candidates are not verified: the artifact knows none of their items")
        found = ", ".join(name.replace("_", " ") for name in self.findings)
        verdict = "audit passed" if self.ok else f"AUDIT FAILED: {found} must be 0"
        return "\n".join([*lines, verdict])
