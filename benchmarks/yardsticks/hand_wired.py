"""The baseline: the usual hand-written design, a web service that computes each answer on request.

FastAPI receives a request with the histories of some users; Paddle computes their interest vectors in dygraph mode,
with the artifact's weights; pymilvus searches with the collection's default consistency; Python merges and sorts the
lists of the interests. It stores no histories and writes nothing, both of which would make it slower.

    python -m benchmarks.yardsticks.hand_wired ARTIFACT MILVUS_URI PORT EF TOP_K
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from pymilvus import MilvusClient

from configs.loader import load_train
from model.artifact import Artifact
from model.serving.encoder import Routing
from model.serving.inputs import model_input
from model.training.backend import paddle
from model.training.net import Mind
from streams.milvus.collection import METRIC, collection_name


class Request(BaseModel):
    histories: list[list[int]]


class Answer(BaseModel):
    item_ids: list[int]
    scores: list[float]


class Recall:
    """Histories → answers, in the style of a tutorial."""

    def __init__(self, artifact: Artifact, milvus: str, ef: int, top_k: int) -> None:
        self._artifact = artifact
        self._net = network(artifact)
        self._client = MilvusClient(uri=milvus)
        self._collection = collection_name(artifact.model_version)
        self._parameters = {"metric_type": METRIC, "params": {"ef": ef}}
        self._top_k = top_k

    def interests(self, histories: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the interest vectors, the first user's first; all items must be in the artifact."""
        rows = [self._artifact.rows(np.asarray(history, dtype=np.int64)) + 1 for history in histories]
        padded, lengths = model_input(rows, self._artifact.history_length)
        embeddings = np.where((padded > 0)[:, :, None], self._artifact.item_vectors[padded - 1], np.float32(0))
        with paddle.no_grad():
            interests, _ = self._net.by_operators(paddle.to_tensor(embeddings), paddle.to_tensor(lengths))
        vectors: list[list[float]] = interests.numpy().reshape(-1, self._artifact.dim).tolist()
        return vectors

    def answer(self, histories: Sequence[Sequence[int]]) -> list[Answer]:
        found = self._client.search(
            self._collection,
            data=self.interests(histories),
            anns_field="embedding",
            limit=self._top_k,
            search_params=self._parameters,
        )
        K = self._artifact.interests
        return [self._merged(found[user * K : (user + 1) * K], set(seen)) for user, seen in enumerate(histories)]

    def _merged(self, lists: Sequence[Sequence[dict[str, float]]], seen: set[int]) -> Answer:
        best: dict[int, float] = {}
        for hits in lists:
            for hit in hits:
                item = int(hit.id)  # type: ignore[attr-defined]  # old servers do not return the name of the key field
                if item not in seen:
                    best[item] = max(hit["distance"], best.get(item, hit["distance"]))
        ranked = sorted(best.items(), key=lambda pair: -pair[1])[: self._top_k]
        return Answer(item_ids=[item for item, _ in ranked], scores=[score for _, score in ranked])


def network(artifact: Artifact) -> Mind:
    """Return the artifact's encoder in Paddle."""
    routing = Routing.from_dict(artifact.encoder)
    settings = {
        "iterations": routing.iterations,
        "routing_temperature": routing.temperature,
        "routing_axis": routing.axis,
        "normalise": routing.normalise,
        "relu": routing.relu,
        "residual": routing.residual,
        "interests_by_history": routing.by_history,
    }
    net = Mind(artifact.weights, load_train().network.model_copy(update=settings))
    net.eval()
    return net


def service(recall: Recall) -> FastAPI:
    app = FastAPI()

    @app.post("/recommend")
    def recommend(request: Request) -> list[Answer]:  # not async: FastAPI runs requests in concurrent threads
        return recall.answer(request.histories)

    return app


if __name__ == "__main__":
    folder, uri, port, ef, top_k = sys.argv[1:]
    recall = Recall(Artifact.load(folder), uri, int(ef), int(top_k))
    uvicorn.run(service(recall), host="127.0.0.1", port=int(port), access_log=False)
