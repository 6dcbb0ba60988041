"""Explain what one history recalls, through the service's own engine: the answer that users get, not another one."""

from __future__ import annotations

import numpy as np

from model.arrays import IdArray, IdVector
from model.artifact import Artifact
from model.explanation.explain import Explanation, Recalled, pairwise_cosines, read_clicks
from model.serving.encoder import Encoder
from model.serving.merge import PADDING
from streams.recall.engine import RecallEngine, RecallSteps


class Explainer:
    """Explains histories. Thread-safe.

    Args:
        artifact: the engine's model.
        engine: recalls for everybody else, too.
        length: largest number of items in each list.

    Raises:
        ArtifactError: this version cannot compute the artifact's encoder.
    """

    def __init__(self, artifact: Artifact, engine: RecallEngine, length: int) -> None:
        self._encoder = Encoder.from_artifact(artifact)
        self._model_version = artifact.model_version
        self._engine = engine
        self._length = length

    def explain(self, user: str, history: IdVector) -> tuple[Explanation, RecallSteps] | None:
        """Explain one history, (n,) item ids, oldest first; None where no item of it has a known vector.

        Interests that the user has too few clicks for (`Routing.by_history`) are left out.

        Raises:
            TransientError: the index did not respond.
        """
        steps = self._engine.steps(history)
        if steps is None:
            return None
        inputs = steps.inputs
        surplus = int(self._encoder.routing.surplus(inputs.lengths, self._encoder.interests).sum())
        K, read = min(len(steps.interests), self._encoder.interests - surplus), int(inputs.lengths[0])
        seen = set(history.tolist())
        known = history[~np.isin(history, list(inputs.unknown))]
        routed = self._encoder.route(inputs.embeddings, inputs.lengths)[0, :K, :read]  # (K, read)
        merged = zip(*(part[: self._length].tolist() for part in steps.merged), strict=True)
        explanation = Explanation(
            user=user,
            model_version=self._model_version,
            history=len(history),
            unknown=history[np.isin(history, list(inputs.unknown))].tolist(),
            clicks=read_clicks(known[-read:], routed),
            targets=(),
            recalled=[self._recalled(steps, interest, seen) for interest in range(K)],
            merged=[Recalled(item, score, interest, item in seen, False) for item, score, interest in merged],
            cosines=pairwise_cosines(steps.interests[:K]).tolist(),
        )
        return explanation, steps

    def _recalled(self, steps: RecallSteps, interest: int, seen: set[int]) -> list[Recalled]:
        ids: IdArray = steps.ids[interest]
        best = np.flatnonzero((ids != PADDING) & ~np.isin(ids, steps.excluded))[: self._length]
        found = zip(ids[best].tolist(), steps.scores[interest, best].tolist(), strict=True)
        return [Recalled(item, score, interest, item in seen, False) for item, score in found]
