"""Build the page from the parts of the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter

from configs.errors import FatalError
from configs.schema import ServiceConfig
from model.data.files import DataError
from model.explanation.names import ItemNames, read_names
from streams.service.catalogue import Catalogue
from streams.service.explanation import Explainer
from streams.service.item_map import MapInBackground
from streams.service.live import KafkaFeed, LiveStream
from streams.service.page import LIST_LENGTH, Page, routes
from streams.service.parts import ServiceParts

#: Most clicked items that the baseline of the hit rate recommends from: a user has seen only few of them.
_POPULAR = 10_000


def page_router(parts: ServiceParts) -> APIRouter:
    """Return the routes of the page. While the service runs, the map is computed.

    Raises:
        FatalError: the file `service.titles` cannot be read.
    """
    page = _page(parts)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        page.map.start()
        try:
            yield
        finally:
            await asyncio.to_thread(page.live.stop)
            await asyncio.to_thread(page.map.stop)

    return routes(page, parts.access.requires("read"), lifespan)


def _page(parts: ServiceParts) -> Page:
    artifact, config = parts.artifact, parts.config
    kafka, topics, group = config.kafka, config.topics, f"{config.worker.group}-clicks"
    catalogue = Catalogue(artifact, _names(config))
    return Page(
        model_version=artifact.model_version,
        history_length=artifact.history_length,
        catalogue=catalogue,
        engine=parts.engine,
        explainer=Explainer(artifact, parts.engine, LIST_LENGTH),
        calls=parts.recommender.calls,
        local=parts.local,
        histories=parts.histories,
        newest=parts.newest,
        live=LiveStream(
            lambda: KafkaFeed(kafka, topics.clicks, topics.recommendations, group),
            topics.clicks,
            catalogue.popular(_POPULAR),
            config.service.page_listeners,
            parts.stopping,
        ),
        map=MapInBackground(artifact, config.service.data_dir),
    )


def _names(config: ServiceConfig) -> ItemNames:
    if config.service.titles is None:
        return {}
    try:
        return read_names(config.service.titles, "service.titles")
    except DataError as error:
        raise FatalError(str(error)) from None
