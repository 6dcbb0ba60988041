"""Rights on a Kafka with an authorizer: the fewest that each program needs, as one table, checked at the start.

The documentation shows this table, and the tests grant exactly these rights: none is missing, and all are documented.
Kafka implies some: a user that may read or write a topic, or read a group, may also describe it; and a user that may
write any topic may write idempotently. Reading without a consumer group needs no right to a group.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

from configs.errors import FatalError
from configs.schema import Kafka, Topics
from streams.kafka.client import ADMIN_TIMEOUT_S, admin_client, metadata
from streams.kafka.topics import TopicSpec, changelog_topic

#: Agents whose consumer groups have a prefix in common: `<group>-items-<model version>-<collection>`.
_PREFIXED_GROUPS = ("items",)
_TOPICS = ("clicks", "items", "recommendations", "dead_letters", "changelog")


@dataclass(frozen=True, slots=True)
class Grant:
    """One operation on topics (keys of `topics` in the configuration, or "changelog") or on groups (agents).

    The right to a group of the item agent is one for a prefix: each collection has a group of its own.
    """

    operation: AclOperation
    topics: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


_READ, _WRITE = AclOperation.READ, AclOperation.WRITE
_CHECK = (Grant(AclOperation.DESCRIBE, _TOPICS), Grant(AclOperation.DESCRIBE_CONFIGS, _TOPICS))
#: Program → the rights that its user needs. A user of several programs needs those of all of them.
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
        Grant(AclOperation.DESCRIBE_CONFIGS, ("items",)),
    ),
    "streams service": (
        Grant(_READ, ("changelog", "recommendations", "items", "clicks")),  # clicks: for the page's figures
        Grant(_WRITE, ("clicks", "items")),
        Grant(AclOperation.DESCRIBE_CONFIGS, ("changelog", "recommendations")),
        Grant(AclOperation.DESCRIBE, groups=("clicks", "items")),
    ),
    "producers.replay": (Grant(_WRITE, ("clicks",)),),
    "producers.items": (Grant(_WRITE, ("items",)),),
    "streams tail": (Grant(_READ, ("recommendations",)),),
    "streams export": (Grant(_READ, ("recommendations",)), Grant(AclOperation.DESCRIBE, ("clicks",))),
    "streams audit": (
        Grant(_READ, ("clicks", "items", "changelog", "recommendations", "dead_letters")),
        Grant(AclOperation.DESCRIBE, groups=("clicks", "items")),
    ),
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
    """One operation on one topic or group.

    Attributes:
        resource_type: "topic" or "group".
        prefixed: whether `name` is the beginning of the names that it is for (Kafka's pattern type PREFIXED).
    """

    operation: AclOperation
    resource_type: str
    name: str
    prefixed: bool = False

    @property
    def example(self) -> str:
        """A name that it is for. Not the prefix itself, to which another right may apply."""
        return f"{self.name}x" if self.prefixed else self.name

    def __str__(self) -> str:
        kind = f"{self.resource_type}s that begin with" if self.prefixed else self.resource_type
        return f"{_acl_name(self.operation)} on {kind} {self.name}"


def rights(program: str, topics: Topics, group: str) -> Iterator[Right]:
    """Yield the rights of a program, with the names of this configuration."""
    names = {key: changelog_topic(group) if key == "changelog" else getattr(topics, key) for key in _TOPICS}
    for grant in GRANTS[program]:
        for key in grant.topics:
            yield Right(grant.operation, "topic", names[key])
        for agent in grant.groups:
            prefixed = agent in _PREFIXED_GROUPS
            yield Right(grant.operation, "group", f"{group}-{agent}{'-' if prefixed else ''}", prefixed)


def worker_rights(topics: Topics, group: str, agents: Collection[str]) -> list[Right]:
    """Return the rights of a worker with these agents, each once."""
    needed = [right for agent in agents for right in rights(f"streams worker --agents {agent}", topics, group)]
    return list(dict.fromkeys(needed))


def service_rights(topics: Topics, group: str) -> list[Right]:
    """Return the rights of a recall service."""
    return list(rights("streams service", topics, group))


def used_topics(specs: Collection[TopicSpec], needed: Collection[Right]) -> list[TopicSpec]:
    """Return the topics that a program with these rights reads or writes; the others need not exist for it."""
    names = {right.name for right in needed if right.resource_type == "topic"}
    return [spec for spec in specs if spec.name in names]


def check_rights(kafka: Kafka, wanted: Collection[Right]) -> None:
    """Check that this user has these rights. Those about which Kafka gives no information count as present.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: Kafka refuses this client, or rights are missing; the message names all of them.
    """
    metadata(kafka)  # raises one clear error if Kafka is unavailable or refuses this client
    client = admin_client(kafka)
    options = {"include_authorized_operations": True, "request_timeout": ADMIN_TIMEOUT_S}
    topics = sorted({right.example for right in wanted if right.resource_type == "topic"})
    groups = sorted({right.example for right in wanted if right.resource_type == "group"})
    answers = {("topic", t): f for t, f in client.describe_topics(TopicCollection(topics), **options).items()}
    if groups:
        answers |= {("group", g): f for g, f in client.describe_consumer_groups(groups, **options).items()}
    granted: dict[tuple[str, str], set[AclOperation]] = {}
    for resource, answer in answers.items():
        try:
            if (operations := answer.result().authorized_operations) is not None:
                granted[resource] = set(operations)
        except KafkaException as error:
            if error.args[0].code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
                granted[resource] = set()
    missing = [r for r in wanted if r.operation not in granted.get((r.resource_type, r.example), {r.operation})]
    if missing:
        raise FatalError(
            f"Kafka user {kafka.username or '(by certificate)'} lacks rights: {', '.join(map(str, missing))}; grant "
            "them (configs/access.md lists the rights of all programs)"
        )


def rights_table() -> str:
    """Return the table in configs/access.md, in Markdown."""
    changelog = changelog_topic("<group>")
    lines = ["| program | operation | topics and groups |", "|---|---|---|"]
    for program, grants in GRANTS.items():
        for grant in grants:
            topics = [f"`{changelog if key == 'changelog' else f'topics.{key}'}`" for key in grant.topics]
            groups = [
                f"groups that begin with `<group>-{agent}-` (`--resource-pattern-type prefixed`)"
                if agent in _PREFIXED_GROUPS
                else f"group `<group>-{agent}`"
                for agent in grant.groups
            ]
            lines.append(f"| `{program}` | {_acl_name(grant.operation)} | {', '.join([*topics, *groups])} |")
    return "\n".join(lines)


def _acl_name(operation: AclOperation) -> str:
    """Return the operation's name as `kafka-acls` and its documentation write it."""
    return operation.name.title().replace("_", "")
