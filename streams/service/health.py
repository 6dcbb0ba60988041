"""The health of the service: what /readyz says, from memory.

A task asks Milvus whether it responds, but only while there is no traffic that shows it. /readyz needs no token, so it
says in general words what is missing; the log has the details.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

from configs.errors import FatalError, MindstreamError
from streams.errors import RestartRequired
from streams.milvus.observed import ObservedIndex
from streams.ports import ReplicaLag
from streams.recall.verified import VerifiedIndex
from streams.service.bodies import ReadyAnswer, ReplicaAnswer
from streams.worker.catalogue import Catalogue

_LOG = logging.getLogger("mindstream.service")

#: Seconds without traffic after which Milvus is pinged.
_PING_INTERVAL_S = 5.0
#: Seconds by which a copy may be behind before the service is not ready any more.
_MAX_AGE_S = 60.0
_MILVUS = "milvus: "


class Replica(Protocol):
    """A copy of a topic."""

    def lag(self) -> ReplicaLag:
        """Return how far it is behind."""
        ...


class _Missing(NamedTuple):
    """A thing that is missing: a text for callers, and one for the log."""

    text: str
    detail: str


class Health:
    """Decides whether the service is ready.

    Args:
        index: the index that is searched.
        searches: its searches, which are passed on only if they are complete.
        catalogue: what the collection of the index holds.
        replicas: name → copy of a topic.
        model_version: the model that the process serves.
        on_restart: called, from another thread, when only a new process can continue.
    """

    def __init__(
        self,
        index: ObservedIndex,
        searches: VerifiedIndex,
        catalogue: Catalogue,
        replicas: Mapping[str, Replica],
        model_version: str,
        on_restart: Callable[[RestartRequired], object] = lambda _: None,
    ) -> None:
        self._index = index
        self._searches = searches
        self._on_restart = on_restart
        self._catalogue = catalogue
        self._replicas = replicas
        self._model_version = model_version
        self._refusal: str | None = None  # the error of a request of `ping` that Milvus refuses
        self._logged: set[str] = set()  # what was missing when the log was written last

    def ready(self) -> ReadyAnswer:
        """Return what is missing."""
        milvus = self._missing_of_milvus()
        missing = [one.text for one in (*self._missing_items(), *milvus)]
        lags = {name: replica.lag() for name, replica in self._replicas.items()}
        for name, lag in lags.items():
            if not lag.caught_up:
                missing.append(f"{name}: the copy is not complete yet, {lag.messages} messages are to be read")
            elif lag.age_s is not None and lag.age_s > _MAX_AGE_S:
                missing.append(f"{name}: the copy is {lag.age_s:.0f} s old; does Kafka answer?")
        return ReadyAnswer(
            ready=not missing,
            missing=missing,
            model_version=self._model_version,
            milvus=milvus[0].text.removeprefix(_MILVUS) if milvus else "answers",
            replicas={
                name: ReplicaAnswer(caught_up=lag.caught_up, lag_messages=lag.messages, age_s=lag.age_s)
                for name, lag in lags.items()
            },
        )

    def ping(self) -> None:
        """Ping Milvus if there was no traffic for some seconds; count the collection's rows now and then.

        Also find out whether the collection is another one now, and whether searches are complete again; log what is
        missing when that has changed.
        """
        if self._index.age_s > _PING_INTERVAL_S:
            self._index.ping()
        try:
            self._index.check_identity()
            self._catalogue.count_when_due()
            self._searches.check()
            self._refusal = None
        except RestartRequired as error:
            self._on_restart(error)
        except FatalError as error:
            self._refusal = str(error)
        except MindstreamError:
            pass  # the index has recorded it
        self._log_changes()

    def _missing_items(self) -> list[_Missing]:
        unfilled = self._catalogue.missing
        return [] if unfilled is None else [_Missing("catalogue: the collection lacks items of the model", unfilled)]

    def _missing_of_milvus(self) -> list[_Missing]:
        if (fault := self._refusal or self._index.fault) is not None:
            return [_Missing(f"{_MILVUS}it does not answer, or refuses a request", fault)]
        incomplete = self._searches.incomplete
        return [] if incomplete is None else [_Missing(f"{_MILVUS}searches do not find all items", incomplete)]

    def _log_changes(self) -> None:
        missing = [*self._missing_items(), *self._missing_of_milvus()]
        for one in missing:
            if one.text not in self._logged:
                _LOG.warning("not ready: %s (%s)", one.text, one.detail)
        if self._logged and not missing:
            _LOG.info("ready: Milvus answers, and the collection holds the model's items")
        self._logged = {one.text for one in missing}

    @asynccontextmanager
    async def pinging(self) -> AsyncIterator[None]:
        """Ping regularly, in another thread."""
        task = asyncio.create_task(self._ping_regularly())
        try:
            yield
        finally:
            task.cancel()

    async def _ping_regularly(self) -> None:
        while True:
            await asyncio.sleep(_PING_INTERVAL_S)
            try:
                await asyncio.to_thread(self.ping)
            except Exception:  # noqa: BLE001 - a defect of ours or of pymilvus; /readyz shows that Milvus is silent
                _LOG.exception("the ping of Milvus failed")
