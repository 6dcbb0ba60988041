"""The table of rights: one constant behind the documentation, the worker's check at its start, and the tests."""

from __future__ import annotations

import pytest

from configs.loader import FOLDER, load_worker
from streams.kafka.acls import GRANTS, rights, rights_table, service_rights, used_topics, worker_rights
from streams.kafka.topics import topic_specs

PAGE = FOLDER / "access.md"


def test_the_page_shows_the_table() -> None:
    assert rights_table() in PAGE.read_text(), (
        "copy the output of streams.kafka.acls.rights_table() into configs/access.md"
    )


def test_names_come_from_the_configuration() -> None:
    config = load_worker(None, ["topics.dead_letters=lost", "worker.group=g"], {})
    shown = {str(right) for right in worker_rights(config.topics, "g", ["clicks", "items"])}
    assert {
        "Read on topic clicks",
        "Write on topic lost",
        "Write on topic g-clicks-history-changelog",
        "Read on group g-clicks",
        "Read on groups that begin with g-items-",
    } <= shown
    assert [str(right) for right in rights("producers.items", config.topics, "g")] == ["Write on topic items"]


@pytest.mark.parametrize(
    ("agents", "used"),
    [
        (["items"], {"items", "dead-letters"}),
        (["clicks"], {"clicks", "recommendations", "dead-letters", "g-clicks-history-changelog"}),
    ],
)
def test_an_agent_needs_only_its_own_topics(agents: list[str], used: set[str]) -> None:
    """An item worker of a new model runs under a new group, which has no changelog yet."""
    config = load_worker(None, ["worker.group=g"], {})
    needed = worker_rights(config.topics, "g", agents)
    assert {spec.name for spec in used_topics(topic_specs(config.topics, "g"), needed)} == used


def test_a_service_reads_what_it_copies_and_writes_what_others_process() -> None:
    config = load_worker(None, ["worker.group=g"], {})
    needed = service_rights(config.topics, "g")
    assert {str(right) for right in needed} == {
        "Read on topic g-clicks-history-changelog",
        "Read on topic recommendations",
        "Read on topic items",
        "Read on topic clicks",
        "Describe on group g-clicks",
        "Describe on groups that begin with g-items-",
        "Write on topic clicks",
        "Write on topic items",
        "DescribeConfigs on topic g-clicks-history-changelog",
        "DescribeConfigs on topic recommendations",
    }


def test_each_right_is_listed_once() -> None:
    config = load_worker(None, (), {})
    needed = worker_rights(config.topics, config.worker.group, ["clicks", "items"])
    assert len(needed) == len(set(needed))
    for program in GRANTS:
        assert list(rights(program, config.topics, config.worker.group))
