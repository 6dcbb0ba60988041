"""Clusters of items by their vectors."""

from __future__ import annotations

import numpy as np

from model.evaluation.clusters import k_means


def test_clusters_do_not_mix_distant_groups() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 50)
    vectors = np.eye(8, dtype=np.float32)[group] + rng.normal(0, 0.1, (200, 8)).astype(np.float32)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    label = k_means(units, 12, rng)
    assert 4 <= len(np.unique(label)) <= 12
    assert all(len(np.unique(group[label == one])) == 1 for one in np.unique(label))
    assert len(k_means(units[:3], 50, rng)) == 3  # more clusters than items
