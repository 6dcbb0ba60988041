"""Explanations through the engine, compared with the offline explanation of the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.explanation.explain import explain
from streams.service.explanation import Explainer
from tests.unit.streams.service.models import small_artifact, small_engine

HISTORY = np.array([3, 99, 2, 1])


def test_the_explanation_is_that_of_the_offline_command(tmp_path: Path) -> None:
    artifact = small_artifact(tmp_path / "artifact")
    engine, _ = small_engine(artifact)
    found = Explainer(artifact, engine, 4).explain("anna", HISTORY)
    assert found is not None
    online, offline = found[0], explain(artifact, "anna", HISTORY, HISTORY[:0], 4, unseen=True)
    assert online.unknown == offline.unknown == [99]
    assert online.clicks == offline.clicks
    assert [click.item for click in online.clicks] == [1, 2, 3], "newest first"
    assert [click.feeds for click in online.clicks][:2] == [0, 1]
    np.testing.assert_allclose(online.cosines, offline.cosines, atol=1e-6)
    for ours, theirs in zip([*online.recalled, online.merged], [*offline.recalled, offline.merged], strict=True):
        best = [one for one in theirs if one.score > 0.01]  # the order of those that fit equally badly is open
        assert [one.item for one in ours][: len(best)] == [one.item for one in best]
        np.testing.assert_allclose([one.score for one in ours][: len(best)], [one.score for one in best], atol=1e-6)


def test_the_merged_list_is_that_of_the_engine(tmp_path: Path) -> None:
    artifact = small_artifact(tmp_path / "artifact")
    engine, _ = small_engine(artifact)
    found = Explainer(artifact, engine, 3).explain("", HISTORY)
    (recalled,) = engine.recall([HISTORY])
    assert found is not None and recalled is not None
    assert [(one.item, one.interest) for one in found[0].merged] == list(
        zip(recalled.item_ids[:3].tolist(), recalled.interests[:3].tolist(), strict=True)
    )


def test_seen_items_are_marked_where_they_are_not_left_out(tmp_path: Path) -> None:
    artifact = small_artifact(tmp_path / "artifact")
    for filter_seen in (True, False):
        engine, _ = small_engine(artifact, filter_seen=filter_seen)
        found = Explainer(artifact, engine, 4).explain("", np.array([1]))
        assert found is not None
        shown = [(one.item, one.seen) for one in found[0].recalled[0]]
        assert ((1, True) in shown) is not filter_seen
        assert (6, False) in shown


def test_interests_that_repeat_the_first_are_left_out(tmp_path: Path) -> None:
    artifact = small_artifact(tmp_path / "artifact", by_history=True)
    engine, _ = small_engine(artifact)
    found = Explainer(artifact, engine, 4).explain("", np.array([1, 2]))  # ⌊log2 2⌋ = 1
    assert found is not None
    assert len(found[0].recalled) == len(found[0].cosines) == 1


def test_an_item_published_later_is_read_and_found(tmp_path: Path) -> None:
    artifact = small_artifact(tmp_path / "artifact")
    engine, index = small_engine(artifact)
    index.upsert(np.array([77]), np.array(artifact.item_vectors[:1]))
    found = Explainer(artifact, engine, 4).explain("", np.array([77]))
    assert found is not None
    assert [click.item for click in found[0].clicks] == [77]
    assert found[0].merged[0].item == 1


def test_nothing_is_explained_without_a_known_item(tmp_path: Path) -> None:
    artifact = small_artifact(tmp_path / "artifact")
    engine, _ = small_engine(artifact)
    assert Explainer(artifact, engine, 4).explain("", np.array([99])) is None
    assert Explainer(artifact, engine, 4).explain("", np.array([], dtype=np.int64)) is None
