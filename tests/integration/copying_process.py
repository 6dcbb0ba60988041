"""A process that keeps the copies of a service up to date until it is killed; its arguments are settings."""

from __future__ import annotations

import sys
import threading

from prometheus_client import CollectorRegistry

from configs.loader import load_service
from streams.metrics import ReplicaMetrics
from streams.service.replicas import open_replicas

if __name__ == "__main__":
    replicas = open_replicas(load_service(None, sys.argv[1:], {}), lambda _: None, ReplicaMetrics(CollectorRegistry()))
    print("opened", flush=True)
    threading.Event().wait()
