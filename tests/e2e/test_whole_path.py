"""20,000 clicks in the AmazonBook format through two worker processes, checked against an independent computation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.serving.encoder import Encoder
from model.serving.inputs import model_input
from producers.synthetic import Shape, generate
from streams.history import History
from streams.kafka.topics import changelog_topic
from streams.messages.clicks import decode_click
from streams.messages.recommendations import Recommendation, decode_recommendation
from streams.tools.audit import audit_kafka
from tests.site import Site, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.standalone]

CLICKS, USERS, ITEMS, LENGTH = 20_000, 1_500, 1_000, 20
#: Scores are float32 sums of 16 products, computed by different code on each side.
TOLERANCE = 1e-4


@pytest.fixture
def site(tmp_path: Path, kafka: str, milvus_standalone: str) -> Iterator[Site]:
    new_site = Site(tmp_path, kafka, milvus_standalone, items=ITEMS)
    new_site.create_topics()
    new_site.fill_index()
    yield new_site
    new_site.drop_index()


def _click_file(folder: Path) -> Path:
    """Write a click file in which some items are unknown to the model, as in real traffic."""
    shape = Shape(users=USERS, items=ITEMS + 50, clicks=CLICKS, tastes=10, tastes_per_user=3, drift=0.02)
    generated = generate(shape, seed=5)
    path = folder / "clicks.csv"
    rows = zip(generated.user.tolist(), generated.item.tolist(), generated.order.tolist(), strict=True)
    path.write_text("".join(f"{user},{item},{order}\n" for user, item, order in rows))
    return path


def _expected_histories(path: Path) -> dict[str, list[int]]:
    """Return user → newest clicks, from the file only, in the order of the third column."""
    clicks: dict[str, list[tuple[int, int]]] = {}
    for line in path.read_text().splitlines():
        user, item, order = line.split(",")
        clicks.setdefault(user, []).append((int(order), int(item)))
    return {user: [item for _, item in sorted(rows)][-LENGTH:] for user, rows in clicks.items()}


def _exact_scores(site: Site, history: list[int], top_k: int) -> dict[int, float] | None:
    """Return item → fused score of the best unseen items, best first, by exact search; None without known items."""
    artifact = site.artifact
    known = [item for item in history if 1 <= item <= ITEMS]
    if not known:
        return None
    (ids,), lengths = model_input([np.array(known)], artifact.history_length)
    embeddings = np.zeros((1, artifact.history_length, artifact.dim), dtype=np.float32)
    embeddings[0, : lengths[0]] = artifact.item_vectors[ids[: lengths[0]] - 1]
    encoder = Encoder.from_artifact(artifact)
    scores = encoder.encode(embeddings, lengths)[0] @ artifact.item_vectors.T  # (K, N)
    scores[:, [item - 1 for item in set(known)]] = -np.inf
    last = -np.sort(-scores, axis=1)[:, top_k - 1 : top_k]  # (K, 1), of each interest's list
    found = scores >= last
    fused = (1 - encoder.fusion) * scores.max(axis=0) + encoder.fusion * np.maximum(scores, last).mean(axis=0)
    fused[~found.any(axis=0)] = -np.inf
    order = np.argsort(-fused)[: top_k + 10]
    return {int(i) + 1: float(fused[i]) for i in order}


def test_every_history_and_every_last_recommendation_is_correct(site: Site) -> None:
    path = _click_file(site.folder)
    expected = _expected_histories(path)
    with site.worker(name="one"), site.worker(name="two"):
        sent = site.run("producers.replay", str(path), sections=("kafka", "topics"))
        assert sent.returncode == 0, sent.stderr
        wait_for(lambda: audit_kafka(site.config).ok, "the workers to answer every click", timeout_s=240)
    report = audit_kafka(site.config)
    assert (report.clicks, report.users, report.dead_letters) == (CLICKS, len(expected), 0)
    for name in ("one", "two"):
        assert "partitions [" in site.log(name).read_text()

    changelog = site.messages(changelog_topic(site.config.worker.group))
    histories = {(m.key or b"").decode(): History.from_bytes(m.value or b"").items.tolist() for m in changelog}
    assert histories == expected

    newest: dict[str, Recommendation] = {}
    for message in site.messages(site.config.topics.recommendations):
        newest[(message.key or b"").decode()] = decode_recommendation(message.value or b"")
    unanswered = 0
    for user, history in expected.items():
        exact = _exact_scores(site, history, site.config.recall.top_k)
        if exact is None:
            assert user not in newest
            unanswered += 1
            continue
        _assert_same(newest[user], exact, site.config.recall.top_k)
    assert report.without_candidates == unanswered

    partitions = {m.partition for m in site.messages(site.config.topics.clicks)}
    assert len(partitions) == site.config.topics.partitions
    keys = {m.key: decode_click(m.key, m.value).user_id for m in site.messages(site.config.topics.clicks)}
    assert len(keys) == len(expected)


def test_workers_join_and_are_killed_under_a_backlog(site: Site) -> None:
    """Many users with few clicks, so that the audit finds every loss; more clicks than one worker answers in 20 s."""
    shape = Shape(users=8_000, items=ITEMS, clicks=32_000, tastes=10, tastes_per_user=2, drift=0.0)
    generated = generate(shape, seed=6)
    order = np.argsort(generated.order, kind="stable")
    rows = zip(generated.user[order].tolist(), generated.item[order].tolist(), strict=True)
    site.producer.send([site.click(user, item) for user, item in rows])
    slow = ["--set", "batch.size=20", "--set", "worker.session_timeout=6"]

    def answered() -> int:
        return len(site.messages(site.config.topics.recommendations))

    with site.worker(*slow, name="first") as first:
        wait_for(lambda: answered() > 500, "recommendations of the first worker")
        with site.worker(*slow, name="second"):
            seen = answered()
            wait_for(lambda: answered() > seen + 500, "more recommendations")
            first.kill()
            with site.worker(*slow, name="third"):
                wait_for(lambda: audit_kafka(site.config).ok, "the others to answer every click", timeout_s=240)
    report = audit_kafka(site.config)
    assert (report.clicks, report.users) == (shape.clicks, shape.users)


def _assert_same(found: Recommendation, exact: dict[int, float], top_k: int) -> None:
    """Assert equal scores by rank, and equal items except where scores are equal."""
    assert len(found.item_ids) == len(set(found.item_ids)) == top_k
    wanted = list(exact.values())[:top_k]
    np.testing.assert_allclose(found.scores, wanted, atol=TOLERANCE)
    for item, score in zip(found.item_ids, found.scores, strict=True):
        assert exact[item] == pytest.approx(score, abs=TOLERANCE)
