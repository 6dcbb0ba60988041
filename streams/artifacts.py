"""The model artifact as the streaming side needs it: loaded, verified, and fitting the rest of the configuration."""

from __future__ import annotations

from configs.errors import FatalError
from configs.schema import WorkerConfig
from model.artifact import Artifact, ArtifactError
from model.serving.encoder import Encoder


def load_artifact(config: WorkerConfig) -> Artifact:
    """The model artifact of the configuration.

    Raises:
        FatalError: it is missing, damaged, or does not fit the rest of the configuration.
    """
    try:
        artifact = Artifact.load(config.model.artifact)
    except ArtifactError as error:
        raise FatalError(str(error)) from None
    if artifact.metric != "IP":
        raise FatalError(f"artifact {artifact.path} wants metric {artifact.metric}; this worker searches by IP alone")
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


def encoder_of(artifact: Artifact) -> Encoder:
    """Its encoder.

    Raises:
        FatalError: this version cannot compute what the artifact describes.
    """
    try:
        return Encoder.from_artifact(artifact)
    except ArtifactError as error:
        raise FatalError(str(error)) from None
