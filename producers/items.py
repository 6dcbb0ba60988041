"""Publish item vectors to Kafka; the item worker writes them into Milvus: python -m producers.items --help"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import orjson

from configs.cli import Command, configured, progress_bar
from configs.errors import FatalError, InputError
from configs.loader import load_replay
from configs.schema import ReplayConfig
from model.artifact import Artifact
from model.artifact_folder import ArtifactError
from model.serving.norms import Norms, normalised
from producers.cli import print_counts_and_exit, stop_on_signals
from producers.sender import Sender, send_all
from streams.errors import BadMessage
from streams.messages.items import Item
from streams.processing.item_messages import KeyValue, check_items, item_message, item_messages, removal_messages

EPILOG = """\b
Examples:
  python -m producers.items --artifact artifacts/latest
  python -m producers.items --artifact artifacts/latest --limit 1000 --rate 500
  python -m producers.items --artifact artifacts/latest --id 367990 --embedding-file new.npy --title "A new book"
  python -m producers.items --delete --id 17 --id 18

\b
An embedding file holds one vector of the artifact's dimension: a NumPy array (.npy) or a JSON list (.json). Where the
model normalises, as shipped, a vector must have norm 1; --normalise divides vectors by their norms.
Exit status: 0 all delivered; 1 an unusable item, or some not delivered; 75 Kafka is unavailable; 78 the configuration
cannot work, or Kafka refuses this client; 130, 143 stopped by SIGINT, SIGTERM.
"""


def read_embedding(path: Path) -> npt.NDArray[np.float32]:
    """Read the array of a .npy or .json file, as float32; `item_message` checks its shape.

    Raises:
        BadMessage: the file cannot be read or does not hold numbers.
    """
    try:
        array = (
            np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.array(orjson.loads(path.read_bytes()))
        )
        with np.errstate(over="ignore"):  # `decode_item` reports infinities
            return np.asarray(array, dtype=np.float32)
    except (OSError, ValueError, TypeError, EOFError) as error:
        detail = f"{path}: not a vector in NumPy's .npy format or a JSON list of numbers: {error}"
        raise BadMessage("bad_embedding", detail) from None


def paced(messages: Iterable[KeyValue], sender: Sender, rate: float | None) -> Iterator[KeyValue]:
    """Yield the messages, at most `rate` per second; end early when the sender is stopped."""
    if rate is None:
        yield from messages
        return
    start = time.monotonic()
    for number, message in enumerate(messages):
        if not sender.wait_until(start + number / rate):
            return
        yield message


def items_sender(config: ReplayConfig) -> Sender:
    """Return a sender to the topic `items`."""
    return Sender(config.kafka, config.producer, config.topics, config.topics.items)


@click.command(cls=Command, epilog=EPILOG)
@configured(load_replay)
@click.option(
    "--artifact",
    type=click.Path(path_type=Path),
    envvar="MINDSTREAM_ARTIFACT",
    show_envvar=True,
    help="Folder written by python -m model.train. A single item takes its model version from here.",
)
@click.option("--id", "item_ids", type=int, multiple=True, help="Id of a single item; repeatable with --delete.")
@click.option("--embedding-file", type=click.Path(path_type=Path), help="Vector of the single item, .npy or .json.")
@click.option("--title", help="Title of the single item.")
@click.option("--category", help="Category of the single item.")
@click.option("--delete", is_flag=True, help="Remove the items given with --id.")
@click.option("--normalise", is_flag=True, help="Divide vectors by their norms, for a model that normalises.")
@click.option("--limit", type=click.IntRange(min=1), help="Publish only the artifact's first items.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Items per second; default: as fast as possible."
)
def main(
    config: ReplayConfig,
    artifact: Path | None,
    item_ids: tuple[int, ...],
    embedding_file: Path | None,
    title: str | None,
    category: str | None,
    delete: bool,
    normalise: bool,
    limit: int | None,
    rate: float | None,
) -> None:
    """Publish the item vectors of an artifact, publish one item, or remove items."""
    single = embedding_file is not None or title is not None or category is not None
    _check_usage(artifact, item_ids, single, delete, normalise)
    messages: Iterable[KeyValue]
    try:
        if delete:
            messages = list(removal_messages(item_ids))
            total = len(messages)
        else:
            assert artifact is not None  # by _check_usage
            source = _load_artifact(artifact)
            norms = _norms(source, normalise)
            if item_ids:
                assert embedding_file is not None  # by _check_usage
                vector = read_embedding(embedding_file)
                vector = normalised(vector) if normalise else vector
                item = Item(item_ids[0], vector, source.model_version, category, title)
                messages, total = [item_message(item, source.dim, norms)], 1
            else:
                check_items(source, norms, limit, normalise=normalise)
                messages = item_messages(source, limit, normalise=normalise)
                total = min(limit or len(source.item_ids), len(source.item_ids))
    except BadMessage as error:
        remedy = "; --normalise does it" if error.reason == "wrong_norm" and norms.unit else ""
        raise InputError(error.detail + remedy) from None
    sender = items_sender(config)
    with stop_on_signals(sender) as signals, progress_bar(total, "items") as show:
        sender.connect()
        report = send_all(sender, paced(messages, sender, rate), lambda report: show(report.delivered))
    print_counts_and_exit(report, "items", signals)


def _check_usage(artifact: Path | None, item_ids: tuple[int, ...], single: bool, delete: bool, normalise: bool) -> None:
    if delete:
        if not item_ids or single or normalise:
            raise click.UsageError("--delete takes only --id, for example --delete --id 17 --id 18")
        return
    if artifact is None:
        raise click.UsageError(
            "--artifact is missing: the folder written by python -m model.train, for example artifacts/latest"
        )
    if single != (len(item_ids) == 1) or len(item_ids) > 1:
        raise click.UsageError(
            "a single item needs one --id and one --embedding-file; without both, all items are published"
        )


def _norms(source: Artifact, normalise: bool) -> Norms:
    norms = Norms.from_artifact(source)
    if normalise and not norms.unit:
        raise InputError(
            f"model {source.model_version} does not normalise: the norms of its vectors matter; leave --normalise out"
        )
    return norms


def _load_artifact(path: Path) -> Artifact:
    try:
        return Artifact.load(path, verify=True)
    except ArtifactError as error:
        raise FatalError(str(error)) from None


if __name__ == "__main__":
    main()
