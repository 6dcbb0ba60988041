"""Items that are published while the worker runs, on real Kafka and Milvus."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

from tests.site import Site, wait_for

pytestmark = pytest.mark.integration


def test_a_new_item_is_recommended_and_counts_in_histories(site: Site) -> None:
    """An item published while the worker runs is found, and clicks on it are encoded with its published vector."""
    site.fill_index()
    vector = np.asarray(site.artifact.item_vectors[10]).copy()
    with site.worker():
        site.producer.send([site.item(5_000, vector)])
        index = site.index()
        wait_for(lambda: 5_000 in index.search(vector[None], 1)[0] or 5_000 in index.search(vector[None], 5)[0], "it")
        site.producer.send([site.click("a", 11)])
        wait_for(lambda: len(site.recommendations()) == 1, "a recommendation")
        assert 5_000 in site.recommendations()[0].item_ids, "item 11 has the same vector"
        site.producer.send([site.click("b", 5_000)])
        wait_for(lambda: len(site.recommendations()) == 2, "a recommendation from the new item only")
        assert site.recommendations()[1].item_ids[0] == 11
        site.producer.send([site.item(5_000, None)])
        wait_for(lambda: 5_000 not in index.search(vector[None], 5)[0], "the removal")


def test_clicks_on_an_item_before_its_vector_are_answered_once_it_is_there(site: Site) -> None:
    """New users click items that were published at the same moment, and do not click again."""
    site.fill_index()
    vectors = np.asarray(site.artifact.item_vectors[:20])
    with site.worker():
        site.producer.send([site.click("first", 11)])
        wait_for(lambda: len(site.recommendations()) == 1, "the worker")
        for n, vector in enumerate(vectors):
            site.producer.send([site.click(f"new-{n}", 6_000 + n)])
            site.producer.send([site.item(6_000 + n, vector)])
        answered = {f"new-{n}" for n in range(20)}
        wait_for(lambda: answered <= {r.user_id for r in site.recommendations()}, "all new users to be answered")
    by_user = {r.user_id: r for r in site.recommendations()}
    # The vector of 6000 + n is that of the n-th item.
    hits = [site.artifact.item_ids[n] in by_user[f"new-{n}"].item_ids for n in range(20)]
    assert all(hits), "the answers are those of the new items' vectors"


def test_a_zombie_overwrites_no_newer_vector(site: Site) -> None:
    """A worker is paused until another one owns its partitions; the messages that it has read are outdated by then."""
    settings = ["--agents", "items", "--set", "worker.session_timeout=6"]
    index = site.index(create=True)
    versions = np.eye(3, site.artifact.dim, dtype=np.float32)
    items = range(1, 17)  # of both partitions

    def holds(version: int) -> bool:
        found = index.get(np.array(items))
        return len(found) == len(items) and all(np.array_equal(vector, versions[version]) for vector in found.values())

    def publish(version: int) -> None:
        site.producer.send([site.item(item, versions[version]) for item in items])

    def assignments(name: str) -> int:
        return site.log(name).read_text().count("-items: partitions [")

    with site.worker(*settings, name="zombie") as zombie, site.worker(*settings, name="other"):
        publish(0)
        wait_for(lambda: holds(0), "the items")
        zombie.send_signal(signal.SIGSTOP)
        try:
            publish(1)
            wait_for(lambda: holds(1), "the other worker to own all partitions")
            publish(2)
            wait_for(lambda: holds(2), "the newest vectors")
            before = assignments("zombie")
        finally:
            zombie.send_signal(signal.SIGCONT)
        wait_for(lambda: assignments("zombie") > before, "the zombie to get partitions again")
        time.sleep(1.0)  # time to process the messages that it has read
        assert holds(2)
    index.close()


def test_an_item_worker_of_a_new_model_needs_no_changelog_of_its_group(site: Site) -> None:
    with site.worker("--agents", "items", "--set", f"worker.group={site.config.worker.group}-new"):
        vector = np.asarray(site.artifact.item_vectors[0])
        site.producer.send([site.item(1, vector)])
        index = site.index()
        wait_for(lambda: index.describe().count == 1, "the item")
    index.close()
