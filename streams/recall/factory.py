"""Build a recall engine from the settings: load the artifact, check that it fits, build the parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from configs.errors import FatalError
from configs.schema import Recall, WorkerConfig
from model.artifact import Artifact
from model.artifact_folder import ArtifactError
from model.serving.encoder import Encoder
from model.serving.norms import Norms
from streams.recall.embeddings import HistoryEmbeddings
from streams.recall.engine import RecallEngine
from streams.recall.ports import ItemReader
from streams.recall.verified import CountedIndex, RequiredItems, VerifiedIndex

#: Item vectors that are searched for when answers look short.
_CANARIES = 32


def load_artifact(config: WorkerConfig) -> Artifact:
    """Load the model artifact of the configuration.

    Raises:
        FatalError: it is missing, damaged, or does not fit the rest of the configuration.
    """
    try:
        artifact = Artifact.load(config.model.artifact)
    except ArtifactError as error:
        raise FatalError(str(error)) from None
    if artifact.metric != "IP":
        raise FatalError(f"artifact {artifact.path} needs metric {artifact.metric}; this worker searches by IP only")
    if config.history.length < artifact.history_length:
        raise FatalError(
            f"history.length is {config.history.length}, but model {artifact.model_version} reads the newest "
            f"{artifact.history_length} clicks; set history.length to at least {artifact.history_length}"
        )
    if config.recall.interests is not None and config.recall.interests > artifact.interests:
        raise FatalError(
            f"recall.interests is {config.recall.interests}, but model {artifact.model_version} has "
            f"{artifact.interests}; set it to at most {artifact.interests}, or to null for all of them"
        )
    return artifact


def searched_interests(settings: Recall, artifact: Artifact) -> int:
    """Return the number of interests per user that an engine of this model searches with."""
    return artifact.interests if settings.interests is None else min(settings.interests, artifact.interests)


def required_items(settings: Recall, artifact: Artifact) -> RequiredItems:
    """Return the items that the collection of a model must hold."""
    return RequiredItems(len(artifact.item_ids), settings.catalogue_share, artifact.path)


def verified(
    settings: Recall, artifact: Artifact, index: CountedIndex, on_short: Callable[[], object]
) -> VerifiedIndex:
    """Return a reader of the index that passes on complete answers only, for `build_engine`.

    Args:
        settings: the share of the model's items that the index must hold, and the number of interests.
        artifact: the model.
        index: the index of its items.
        on_short: see `VerifiedIndex`.
    """
    required = required_items(settings, artifact)
    spread = np.linspace(0, len(artifact.item_ids) - 1, _CANARIES).astype(np.int64)
    canaries = np.array(artifact.item_vectors[spread], dtype=np.float32)
    return VerifiedIndex(index, searched_interests(settings, artifact), required, canaries, on_short)


def build_engine(settings: Recall, artifact: Artifact, index: ItemReader) -> RecallEngine:
    """Build the engine of one model over an index of its items.

    Raises:
        FatalError: this version cannot compute the encoder that the artifact describes.
    """
    try:
        encoder = Encoder.from_artifact(artifact)
    except ArtifactError as error:
        raise FatalError(str(error)) from None
    embeddings = HistoryEmbeddings(
        artifact,
        index,
        capacity=settings.new_item_cache,
        refresh_s=settings.new_item_refresh,
        unknown_ttl_s=settings.unknown_item_ttl,
        norms=Norms.from_artifact(artifact),
    )
    return RecallEngine(
        encoder,
        embeddings,
        index,
        top_k=settings.top_k,
        interests=searched_interests(settings, artifact),
        filter_seen=settings.filter_seen,
    )
