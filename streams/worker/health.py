"""What the process says about itself over HTTP: /metrics, /healthz (should it be restarted?), /readyz (does it work?).

For probes and people on the same machine or network: it takes no input and shows nothing of users. Answers come from
memory; whether Milvus answers is found out by a thread of its own, and only while there is no traffic that tells.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from streams.milvus.observed import ObservedIndex
from streams.worker.watchdog import Agent, LoopMonitor, Watchdog

_LOG = logging.getLogger("mindstream.health")

#: Seconds without a run of the event loop from which on the process does not live.
_SILENCE = 10.0
#: Seconds without traffic after which Milvus is asked whether it is there.
PING_EVERY = 5.0


class Health:
    """Whether the process lives and whether it is ready, from what its parts say.

    Args:
        agents: name → agent.
        index: as the agents use it.
        watchdog: of the agents.
        loop_monitor: of the event loop.
        model_version: that the process serves.
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
        """Whether there is no reason to restart the process; and the reasons."""
        reasons = []
        if self._loop_monitor.silence > _SILENCE:
            reasons.append(f"the event loop has not run for {self._loop_monitor.silence:.0f} s")
        for topic, seconds in self._watchdog.stalled_seconds().items():
            reasons.append(f"{topic} has stood still for {seconds:.0f} s while messages wait")
        return not reasons, {"live": not reasons, "reasons": reasons}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether clicks are answered; and what is missing for it.

        An agent without partitions, because there are more workers than partitions, is ready.
        """
        missing = []
        agents = {}
        for name, agent in self._agents.items():
            state = agent.state()
            # Without partitions there is nothing to restore; the first look of the batch thread is still due.
            restored = state.restored or state.owned == frozenset()
            agents[name] = {"partitions": None if state.owned is None else sorted(state.owned), "restored": restored}
            if state.owned is None:
                missing.append(f"{name}: no assignment of partitions yet")
            elif not restored:
                missing.append(f"{name}: histories are being restored")
            if state.retrying:
                missing.append(f"{name}: {state.doing} has been tried again for {state.retrying:.0f} s")
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
        """Ask Milvus, if no traffic has lately."""
        if self._index.age > PING_EVERY:
            self._index.ping()
