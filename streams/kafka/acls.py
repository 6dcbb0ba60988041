"""Rights on a Kafka with an authorizer: the least that each program needs, as one table, checked at the start.

The table is what the documentation shows and what the tests grant, so it is neither too small nor too large. Kafka adds
by itself: who may read or write a topic, or read a group, may also describe it; and who may write any topic may write
idempotently. Reading without a group takes no right to one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

from configs.errors import FatalError
from configs.schema import Kafka, Topics
from streams.kafka.client import ADMIN_TIMEOUT, admin, metadata
from streams.kafka.topics import TopicSpec, changelog_topic

_TOPICS = ("clicks", "items", "recommendations", "dead_letters", "changelog")


@dataclass(frozen=True, slots=True)
class Grant:
    """One operation on some topics (keys of `topics` in the configuration, or "changelog") or groups (agents)."""

    operation: AclOperation
    topics: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


_READ, _WRITE = AclOperation.READ, AclOperation.WRITE
_CHECK = (Grant(AclOperation.DESCRIBE, _TOPICS), Grant(AclOperation.DESCRIBE_CONFIGS, ("changelog",)))
#: Program → what its user needs. A user of several programs needs the rights of all of them.
GRANTS: dict[str, tuple[Grant, ...]] = {
    "streams topics create": (Grant(AclOperation.CREATE, _TOPICS), *_CHECK),
    "streams topics check": _CHECK,
    "streams worker --agents clicks": (
        Grant(_READ, ("clicks", "changelog"), ("clicks",)),
        Grant(_WRITE, ("recommendations", "changelog", "dead_letters")),
        Grant(AclOperation.DESCRIBE_CONFIGS, ("changelog",)),
    ),
    "streams worker --agents items": (
        Grant(_READ, ("items",), ("items",)),
        Grant(_WRITE, ("dead_letters",)),
    ),
    "producers.replay": (Grant(_WRITE, ("clicks",)),),
    "producers.items": (Grant(_WRITE, ("items",)),),
    "streams tail": (Grant(_READ, ("recommendations",)),),
    "streams audit": (Grant(_READ, ("clicks", "changelog", "recommendations", "dead_letters")),),
    "streams deadletters list": (Grant(_READ, ("dead_letters",)),),
    "streams deadletters show": (Grant(_READ, ("dead_letters",)),),
    "streams deadletters replay": (
        Grant(_READ, ("dead_letters",)),
        Grant(_WRITE, ("clicks", "items", "dead_letters")),
        Grant(AclOperation.DESCRIBE_CONFIGS, ("clicks", "items")),
    ),
}


@dataclass(frozen=True, slots=True)
class Right:
    """One operation on one topic or group."""

    operation: AclOperation
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{_spelled(self.operation)} on {self.kind} {self.name}"


def rights(program: str, topics: Topics, group: str) -> Iterator[Right]:
    """The rights of a program, with the names of a configuration."""
    names = {key: changelog_topic(group) if key == "changelog" else getattr(topics, key) for key in _TOPICS}
    for grant in GRANTS[program]:
        for key in grant.topics:
            yield Right(grant.operation, "topic", names[key])
        for agent in grant.groups:
            yield Right(grant.operation, "group", f"{group}-{agent}")


def worker_rights(topics: Topics, group: str, agents: Collection[str]) -> list[Right]:
    """The rights of a worker with these agents."""
    needed = [right for agent in agents for right in rights(f"streams worker --agents {agent}", topics, group)]
    return list(dict.fromkeys(needed))


def used_topics(specs: Collection[TopicSpec], needed: Collection[Right]) -> list[TopicSpec]:
    """Those of the topics that whoever needs these rights reads or writes; the others need not exist for it."""
    names = {right.name for right in needed if right.kind == "topic"}
    return [spec for spec in specs if spec.name in names]


def check_rights(kafka: Kafka, wanted: Collection[Right]) -> None:
    """Ask Kafka whether this user has these rights. What it does not tell is no reason to refuse.

    Raises:
        TransientError: Kafka is away.
        FatalError: it refuses us, or rights are missing; the message names all of them.
    """
    metadata(kafka)  # one clear error when Kafka is away or refuses us
    client = admin(kafka)
    asked = {"include_authorized_operations": True, "request_timeout": ADMIN_TIMEOUT}
    topics = sorted({right.name for right in wanted if right.kind == "topic"})
    groups = sorted({right.name for right in wanted if right.kind == "group"})
    answers = {("topic", t): f for t, f in client.describe_topics(TopicCollection(topics), **asked).items()}
    answers |= {("group", g): f for g, f in client.describe_consumer_groups(groups, **asked).items()} if groups else {}
    granted: dict[tuple[str, str], set[AclOperation]] = {}
    for resource, answer in answers.items():
        try:
            if (operations := answer.result().authorized_operations) is not None:
                granted[resource] = set(operations)
        except KafkaException as error:
            if error.args[0].code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
                granted[resource] = set()
    missing = [r for r in wanted if r.operation not in granted.get((r.kind, r.name), {r.operation})]
    if missing:
        raise FatalError(
            f"Kafka gives user {kafka.username or '(by certificate)'} too few rights: it needs "
            f"{', '.join(map(str, missing))}; grant them (the list for all programs is in configs/access.md)"
        )


def table() -> str:
    """The documentation's table, in Markdown."""
    changelog = changelog_topic("<group>")
    lines = ["| program | operation | topics and groups |", "|---|---|---|"]
    for program, grants in GRANTS.items():
        for grant in grants:
            topics = [f"`{changelog if key == 'changelog' else f'topics.{key}'}`" for key in grant.topics]
            groups = [f"group `<group>-{agent}`" for agent in grant.groups]
            lines.append(f"| `{program}` | {_spelled(grant.operation)} | {', '.join([*topics, *groups])} |")
    return "\n".join(lines)


def _spelled(operation: AclOperation) -> str:
    """As `kafka-acls` and its documentation write it."""
    return operation.name.title().replace("_", "")
