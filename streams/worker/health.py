"""The health of the worker: /healthz (should it be restarted?) and /readyz (are clicks answered?).

The answers come from memory. A thread asks Milvus whether it responds, but only while there is no traffic that shows
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from configs.errors import MindstreamError
from streams.agents.state import AgentState
from streams.milvus.observed import ObservedIndex
from streams.worker.catalogue import Catalogue
from streams.worker.watchdog import Agent, LoopMonitor, Watchdog

#: Seconds for which the event loop may not run before the process counts as dead.
_MAX_SILENCE_S = 10.0
#: Seconds without traffic after which Milvus is pinged.
PING_INTERVAL_S = 5.0


class Health:
    """Decides from the worker's parts whether the process is alive and whether it is ready.

    Args:
        agents: name → agent.
        index: the index that the agents use.
        catalogue: what the collection of the index holds.
        watchdog: watches the agents.
        loop_monitor: monitors the event loop.
        model_version: the model that the process serves.
    """

    def __init__(
        self,
        agents: Mapping[str, Agent],
        index: ObservedIndex,
        catalogue: Catalogue,
        watchdog: Watchdog,
        loop_monitor: LoopMonitor,
        model_version: str,
    ) -> None:
        self._agents = agents
        self._index = index
        self._catalogue = catalogue
        self._watchdog = watchdog
        self._loop_monitor = loop_monitor
        self._model_version = model_version

    def live(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the process need not be restarted, and the body of /healthz, with the reasons to restart."""
        reasons = []
        if self._loop_monitor.silence_s > _MAX_SILENCE_S:
            reasons.append(f"the event loop has not run for {self._loop_monitor.silence_s:.0f} s")
        for topic, seconds in self._watchdog.stalled_seconds().items():
            reasons.append(f"{topic} has been stalled for {seconds:.0f} s while messages wait")
        return not reasons, {"live": not reasons, "reasons": reasons}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Return whether clicks are answered, and the body of /readyz, with what is missing.

        An agent without partitions is ready if other workers own them all: there are more workers than partitions.
        A process with only the item agent is ready before the collection is filled: it fills it.
        """
        missing = []
        agents = {}
        if "clicks" in self._agents and (unfilled := self._catalogue.missing) is not None:
            missing.append(f"catalogue: {unfilled}")
        for name, agent in self._agents.items():
            state = agent.state()
            # Without partitions there is nothing to restore, but the batch thread has not confirmed that yet.
            restored = state.acquired or state.partitions == frozenset()
            partitions = None if state.partitions is None else sorted(state.partitions)
            agents[name] = {"partitions": partitions, "restored": restored}
            if (lack := self._lack(agent, state)) is not None:
                missing.append(f"{name}: {lack}")
            if state.retrying_s:
                missing.append(f"{name}: {state.call} has been retried for {state.retrying_s:.0f} s")
        faults = {"milvus": self._index.fault, "kafka": self._watchdog.kafka_fault}
        missing += [f"{name}: {fault}" for name, fault in faults.items() if fault is not None]
        return not missing, {
            "ready": not missing,
            "missing": missing,
            "agents": agents,
            "model_version": self._model_version,
            **{name: "answers" if fault is None else fault for name, fault in faults.items()},
        }

    def _lack(self, agent: Agent, state: AgentState) -> str | None:
        """Return what keeps the agent from processing its partitions; None = nothing."""
        if not state.started:
            return "it has not started yet"
        if state.partitions is None:
            return "no partitions are assigned yet"
        if not state.partitions:
            unowned = self._watchdog.unowned(agent.topic)
            if unowned is None:
                return "it owns no partitions, and it is not known yet whether other workers own them"
            return f"it owns no partitions, and no worker owns partitions {sorted(unowned)}" if unowned else None
        return None if state.acquired else "histories are being restored"

    def ping(self) -> None:
        """Ping Milvus if there was no traffic for `PING_INTERVAL_S`; count the collection's rows now and then."""
        if self._index.age_s > PING_INTERVAL_S:
            self._index.ping()
        with suppress(MindstreamError):  # the index has recorded it
            self._catalogue.count_when_due()
