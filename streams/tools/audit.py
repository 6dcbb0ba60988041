"""The audit: recompute from the clicks what the worker must have written, and compare it with what it wrote.

It shares no bookkeeping with the worker: it applies each readable click once, in the topic's order, and expects

1. a dead letter, with the original bytes, for every unreadable message, and for no other one;
2. every history record in the changelog, older ones included, to equal the recomputed history at that click, and the
   record written last to be the one of the user's newest click;
3. for every user a recommendation whose source is the user's newest click, written last; and every recommendation to be
   an answer: for a click of its user, and not shorter than the catalogue allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from configs.schema import WorkerConfig
from model.artifact import Artifact
from streams.kafka.offsets import TopicOffsets
from streams.kafka.reading import read_to_end, watermarks
from streams.kafka.topics import changelog_topic
from streams.messages.dead_letters import read_dead_letter
from streams.partitioning import KeyPartitions
from streams.ports import Message
from streams.recall.factory import load_artifact
from streams.tools.audit_answers import audit_answers
from streams.tools.audit_clicks import ClickRef, KeptDeadLetter, audit_clicks, content_hash
from streams.tools.audit_histories import audit_histories
from streams.tools.audit_report import AuditReport


def audit_kafka(config: WorkerConfig, artifact: Artifact | None = None) -> AuditReport:
    """Audit the topics of a configuration.

    Args:
        config: names the cluster and the topics.
        artifact: the model; None = the configured one.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: a topic or the artifact is missing.
    """
    artifact = artifact or load_artifact(config)
    kafka, topics = config.kafka, config.topics

    def messages(topic: str) -> Iterable[Message]:
        return (received.message for received in read_to_end(kafka, topic))

    # Dead letters are read first, so that every click with a dead letter is among those read afterwards.
    dead_letters = kept_dead_letters(config)
    begins = {partition: oldest for partition, (oldest, _) in watermarks(kafka, topics.clicks).items()}
    committed = TopicOffsets(kafka, topics.clicks, f"{config.worker.group}-clicks").committed(begins)
    return audit(
        config,
        artifact,
        clicks=messages(topics.clicks),
        dead_letters={
            (partition, offset): k for (topic, partition, offset), k in dead_letters.items() if topic == topics.clicks
        },
        begins=begins,
        committed=committed,
        changelog=messages(changelog_topic(config.worker.group)),
        recommendations=messages(topics.recommendations),
    )


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
    """
    length = config.history.length
    partitions = KeyPartitions(config.topics.partitioner, config.topics.partitions)
    expected = audit_clicks(clicks, dead_letters, begins, committed, partitions)
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
        unaccounted=sum(ref not in dead_letters for ref in expected.unreadable),
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
    return max(0, min(config.recall.top_k, len(artifact.item_ids) - seen))
