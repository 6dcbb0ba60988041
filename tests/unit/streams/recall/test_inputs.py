"""The encoder's input of a batch of histories."""

from __future__ import annotations

import numpy as np

from streams.recall.embeddings import HistoryEmbeddings
from streams.recall.inputs import encoder_inputs
from streams.recall.memory import MemoryIndex
from tests.unit.fakes import VERSION, FewItems

D = 4


def test_the_newest_known_clicks_are_read_and_unknown_ones_named() -> None:
    embeddings = HistoryEmbeddings(FewItems(D), MemoryIndex(VERSION, D), capacity=10, refresh_s=60.0, unknown_ttl_s=1.0)
    histories = [np.array(items, dtype=np.int64) for items in ([1, 2, 99, 3], [], [98], [4])]
    stages: list[str] = []
    found = encoder_inputs(histories, embeddings, 2, stages.append)
    assert found.rows.tolist() == [0, 3]
    assert found.lengths.tolist() == [2, 1]
    assert found.unknown == {98, 99}
    axes = found.embeddings.argmax(axis=2)
    assert axes[0].tolist() == [1, 2], "items 2 and 3: an unknown item pushes no known one out"
    assert axes[1, 0] == 3 and not found.embeddings[1, 1].any()
    assert stages == ["embed"]
