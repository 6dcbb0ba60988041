"""Generated models and traffic."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.harness.data import Shop, random_artifact
from configs.loader import load_train
from model.serving.encoder import Routing


def test_the_traffic_of_a_shop(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", items=2000, dim=8, users=40, clicks=60)
    for traffic in (shop.rounds(), shop.sessions()):
        clicks, earlier = traffic.clicks(), dict(traffic.earlier(1000))
        assert len(clicks) + sum(map(len, earlier.values())) == len(traffic.log)
        for history in traffic.histories(20, 5, np.random.default_rng(0)):
            assert 1 <= len(history) <= 5
            assert set(history.tolist()) <= set(traffic.log.item.tolist())
    rounds, sessions = shop.rounds().clicks(), shop.sessions().clicks()
    in_order = rounds.user[np.argsort(rounds.order, kind="stable")]
    assert sorted(in_order[:40].tolist()) == sorted(in_order[40:].tolist()) == list(range(40))
    assert len(sessions) == 60
    oldest = sessions.order.min()
    assert np.count_nonzero(shop.sessions().log.order >= oldest) == 60  # the newest ones


def test_a_generated_model_computes_as_the_shipped_configuration(tmp_path: Path) -> None:
    artifact, network = random_artifact(tmp_path, items=10, dim=8), load_train().network
    assert Routing.from_dict(artifact.encoder) == Routing.from_network(network)
    assert artifact.interests == network.interests
