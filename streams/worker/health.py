"""The health of the worker: /healthz (should it be restarted?) and /readyz (are clicks answered?).

The answers come from memory. A thread asks Milvus whether it responds, but only while there is no traffic that shows
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streams.milvus.observed import ObservedIndex
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
        watchdog: watches the agents.
        loop_monitor: monitors the event loop.
        model_version: the model that the process serves.
    """

    def __init__(
        self,
        agents: Mapping[str, Agent],
        index: ObservedIndex,
        watchdog: Watchdog,
        loop_monitor: LoopMonitor,
        model_version: str,
    ) -> None:
        self._agents = agents
        self._index = index
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

        An agent without partitions, because there are more workers than partitions, is ready.
        """
        missing = []
        agents = {}
        for name, agent in self._agents.items():
            state = agent.state()
            # Without partitions there is nothing to restore, but the batch thread has not confirmed that yet.
            restored = state.acquired or state.partitions == frozenset()
            partitions = None if state.partitions is None else sorted(state.partitions)
            agents[name] = {"partitions": partitions, "restored": restored}
            if partitions is None:
                missing.append(f"{name}: no partitions are assigned yet")
            elif not restored:
                missing.append(f"{name}: histories are being restored")
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

    def ping(self) -> None:
        """Ping Milvus if there was no traffic for `PING_INTERVAL_S`."""
        if self._index.age_s > PING_INTERVAL_S:
            self._index.ping()
