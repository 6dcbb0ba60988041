"""Build the page from the parts of the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from configs.errors import FatalError
from configs.schema import ServiceConfig
from model.artifact import Artifact
from model.data.files import DataError
from model.explanation.names import ItemNames, read_names
from streams.recall.engine import RecallEngine
from streams.service.catalogue import Catalogue
from streams.service.explanation import Explainer
from streams.service.item_map import MapInBackground
from streams.service.live import KafkaFeed, LiveStream
from streams.service.page import LIST_LENGTH, Page
from streams.service.ports import NewestRecommendations, UserHistories

#: Most clicked items that the baseline of the hit rate recommends from: a user has seen only few of them.
_POPULAR = 10_000


def build_page(
    config: ServiceConfig,
    artifact: Artifact,
    engine: RecallEngine,
    histories: UserHistories,
    newest: NewestRecommendations,
) -> Page:
    """Build the page; nothing runs before `running`.

    Raises:
        FatalError: the file `service.titles` cannot be read.
    """
    kafka, topics, group = config.kafka, config.topics, config.worker.group
    catalogue = Catalogue(artifact, _names(config))
    return Page(
        model_version=artifact.model_version,
        history_length=artifact.history_length,
        catalogue=catalogue,
        engine=engine,
        explainer=Explainer(artifact, engine, LIST_LENGTH),
        histories=histories,
        newest=newest,
        live=LiveStream(
            lambda: KafkaFeed(kafka, topics.clicks, topics.recommendations, group),
            topics.clicks,
            catalogue.popular(_POPULAR),
            config.service.page_listeners,
        ),
        map=MapInBackground(artifact, config.service.data_dir),
    )


@asynccontextmanager
async def running(page: Page) -> AsyncIterator[None]:
    """Compute the map while the service runs, and stop following the stream at its end."""
    page.map.start()
    try:
        yield
    finally:
        await asyncio.to_thread(_stop, page)


def _stop(page: Page) -> None:
    page.live.stop()
    page.map.stop()


def _names(config: ServiceConfig) -> ItemNames:
    if config.service.titles is None:
        return {}
    try:
        return read_names(config.service.titles, "service.titles")
    except DataError as error:
        raise FatalError(str(error)) from None
