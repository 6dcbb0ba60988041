"""The audit: recompute from the clicks what the worker must have written, and compare it with what it wrote.

It shares no bookkeeping with the worker: it applies each readable click once, in the topic's order, and expects

1. a dead letter, with the original bytes, for every unreadable message, and for no other one;
2. every history record in the changelog, older ones included, to equal the recomputed history at that click, and the
   record written last to be the one of the user's newest click;
3. for every user a recommendation whose source is the user's newest click, written last; and every recommendation to be
   an answer: for a click of its user, and not shorter than the catalogue allows;
4. in Milvus, the newest message of every item, and nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from configs.schema import WorkerConfig
from model.artifact import Artifact
from model.serving.norms import Norms
from streams.kafka.offsets import TopicOffsets
from streams.kafka.reading import read_to_end, watermarks
from streams.kafka.topics import changelog_topic, items_group
from streams.messages.dead_letters import read_dead_letter
from streams.milvus.index import MilvusIndex
from streams.partitioning import KeyPartitions
from streams.ports import Message
from streams.processing.item_decoder import ItemDecoder
from streams.recall.factory import load_artifact
from streams.tools.audit_answers import audit_answers
from streams.tools.audit_clicks import ClickRef, KeptDeadLetter, audit_clicks, content_hash
from streams.tools.audit_histories import audit_histories
from streams.tools.audit_items import AuditedItems, ItemRef, audit_items
from streams.tools.audit_report import AuditReport

#: Source partition of rows that no message has written.
_NO_SOURCE = -1
#: Seconds that the audit may take, while retention goes on.
_MARGIN_S = 3600.0


def audit_kafka(config: WorkerConfig, artifact: Artifact | None = None, *, items: bool = False) -> AuditReport:
    """Audit the topics of a configuration.

    Args:
        config: names the cluster and the topics.
        artifact: the model; None = the configured one.
        items: compare Milvus with the item topic, too.

    Raises:
        TransientError: Kafka or Milvus is unavailable.
        FatalError: a topic, the artifact or the collection is missing.
    """
    artifact = artifact or load_artifact(config)
    topics = config.topics
    # Dead letters are read first, so that every message with a dead letter is among those read afterwards.
    dead_letters = kept_dead_letters(config)
    retained_since = _retained_since(config)
    begins = {partition: oldest for partition, (oldest, _) in watermarks(config.kafka, topics.clicks).items()}
    committed = TopicOffsets(config.kafka, topics.clicks, f"{config.worker.group}-clicks").committed(begins)
    report = audit(
        config,
        artifact,
        clicks=_messages(config, topics.clicks),
        dead_letters={ref[1:]: kept for ref, kept in dead_letters.items() if ref[0] == topics.clicks},
        begins=begins,
        committed=committed,
        changelog=_messages(config, changelog_topic(config.worker.group)),
        recommendations=_messages(config, topics.recommendations),
        retained_since=retained_since,
    )
    if not items:
        return report
    of_items = {ref[1:]: kept for ref, kept in dead_letters.items() if ref[0] == topics.items}
    found = _audit_items(config, artifact, of_items, retained_since)
    return replace(
        report,
        items=found.count,
        unverified=report.unverified + found.unverified,
        letters_unfounded=report.letters_unfounded + found.dead_letters_unfounded,
        letters_different=report.letters_different + found.dead_letters_different,
        items_unaccounted=found.unaccounted,
        lag_items=found.lag,
        rows_missing=found.rows_missing,
        rows_stale=found.rows_stale,
        rows_unfounded=found.rows_unfounded,
    )


def _messages(config: WorkerConfig, topic: str) -> Iterable[Message]:
    return (r.message._replace(timestamp=r.timestamp) for r in read_to_end(config.kafka, topic))


def _retained_since(config: WorkerConfig) -> float:
    """Return the time since which dead letters and recommendations are complete; 0 if retention has deleted none."""
    topics = config.topics
    # The shorter one for both: topics of earlier versions keep recommendations as long as clicks. Compaction removes
    # only those that another one of their user follows, and does not move the beginning of the topic.
    days = min(topics.retention_days, topics.recommendation_retention_days)
    for topic in (topics.dead_letters, topics.recommendations):
        if any(oldest for oldest, _ in watermarks(config.kafka, topic).values()):
            return time.time() - days * 86_400 + _MARGIN_S
    return 0.0


def _audit_items(
    config: WorkerConfig, artifact: Artifact, dead_letters: Mapping[ItemRef, KeptDeadLetter], retained_since: float
) -> AuditedItems:
    topics, partitions = config.topics, range(config.topics.item_partitions)
    index = MilvusIndex(config.milvus, artifact.model_version, artifact.dim, create=False)
    try:
        rows: dict[int, ItemRef] = {}
        for partition in (_NO_SOURCE, *partitions):
            for ids, offsets in index.rows(partition):
                rows.update((i, (partition, offset)) for i, offset in zip(ids.tolist(), offsets.tolist(), strict=True))
        group = items_group(config.worker.group, artifact.model_version, index.identity)
        decoder = ItemDecoder(
            artifact.model_version,
            artifact.dim,
            Norms.from_artifact(artifact),
            KeyPartitions(topics.partitioner, topics.item_partitions),
        )
        committed = TopicOffsets(config.kafka, topics.items, group).committed(partitions)
        messages = _messages(config, topics.items)
        return audit_items(messages, rows, dead_letters, committed, decoder.decode, retained_since)
    finally:
        index.close()


def kept_dead_letters(config: WorkerConfig) -> dict[tuple[str, int, int], KeptDeadLetter]:
    """Return (topic, partition, offset) of every message that has a dead letter → the dead letter."""
    dead_letters: dict[tuple[str, int, int], KeptDeadLetter] = {}
    for message, headers, _ in read_to_end(config.kafka, config.topics.dead_letters, headers=True):
        dead_letter = read_dead_letter(message, headers)
        if dead_letter is not None:
            content = (
                None if dead_letter.omitted_bytes else content_hash(dead_letter.message.key, dead_letter.message.value)
            )
            dead_letters[dead_letter.source] = KeptDeadLetter(dead_letter.reason, content)
    return dead_letters


def audit(
    config: WorkerConfig,
    artifact: Artifact,
    *,
    clicks: Iterable[Message],
    dead_letters: Mapping[ClickRef, KeptDeadLetter],
    begins: Mapping[int, int],
    committed: Mapping[int, int | None],
    changelog: Iterable[Message],
    recommendations: Iterable[Message],
    retained_since: float = 0.0,
) -> AuditReport:
    """Audit messages; each iterable is in order within its partitions.

    Args:
        config: lengths of histories and recommendations.
        artifact: the model.
        clicks: messages of the click topic.
        dead_letters: the clicks that have a dead letter.
        begins: partition of the click topic → offset of its oldest message.
        committed: partition of the click topic → offset that the worker has committed; None = none.
        changelog: messages of the histories' changelog.
        recommendations: messages of the recommendation topic.
        retained_since: seconds since 1970; Kafka has all dead letters and recommendations from this time on. Those of
            older messages may have been deleted: the topics' segments end at different times.
    """
    length = config.history.length
    partitions = KeyPartitions(config.topics.partitioner, config.topics.partitions)
    expected = audit_clicks(clicks, dead_letters, begins, committed, partitions, retained_since)
    without_letter = [ref for ref in expected.unreadable if ref not in dead_letters]
    unaccounted = sum(expected.verifiable(*ref) for ref in without_letter)
    histories = audit_histories(changelog, expected, length, artifact.history_length)
    answers = audit_answers(
        recommendations,
        expected,
        history_length=length,
        item_rows=artifact.rows,
        shortest_answer=_shortest_answer(config, artifact),
        model_version=artifact.model_version,
    )
    return AuditReport(
        clicks=expected.count,
        clicks_deleted=sum(begins.values()),
        dead_letters=sum(ref in dead_letters for ref in expected.unreadable),
        users=len(expected.by_user),
        recommendations=answers.count,
        repeats=answers.repeats,
        out_of_order=answers.out_of_order,
        foreign=answers.foreign,
        changelog_foreign=histories.foreign,
        without_candidates=answers.without_candidates,
        histories_equal=histories.equal,
        histories_of_other_length=histories.of_other_length,
        items=None,
        unverified=len(without_letter) - unaccounted + answers.unverified,
        unaccounted=unaccounted,
        letters_unfounded=expected.letters_unfounded,
        letters_different=expected.letters_different,
        clicks_removed_unread=expected.removed_unread,
        clicks_misplaced=expected.misplaced,
        users_split=expected.users_split,
        lag_clicks=expected.lag,
        histories_missing=histories.missing,
        histories_different=histories.different,
        histories_overwritten=histories.overwritten,
        fences_foreign=histories.fences_foreign,
        users_stale=answers.stale,
        answers_overtaken=answers.overtaken,
        answers_unfounded=answers.unfounded,
        answers_mislabelled=answers.mislabelled,
        answers_empty=answers.empty,
        answers_short=answers.short,
    )


def _shortest_answer(config: WorkerConfig, artifact: Artifact) -> int:
    """Return the number of items that every recommendation must have: the catalogue has more, even without the seen."""
    seen = config.history.length if config.recall.filter_seen else 0
    least = math.ceil(config.recall.catalogue_share * len(artifact.item_ids))
    return max(0, min(config.recall.top_k, least - seen))
