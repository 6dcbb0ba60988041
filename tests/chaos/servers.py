"""The servers of the chaos suite: a real broker behind a proxy, and a real Milvus with a liveness probe."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedded import ports
from embedded.errors import EmbeddedError
from embedded.instance import Instance, Reporter
from embedded.kafka import Kafka
from embedded.server import Launch, Server
from embedded.stack import Stack
from embedded.standalone import require_platform
from tests.chaos.proxy import Proxy

#: Seconds without a healthy response after which Milvus is restarted.
MILVUS_RESTART_AFTER_S = 15.0


class _ProxiedKafka(Kafka):
    """A broker with a second listener, which it advertises at the proxy's port."""

    def __init__(self, instance: Instance, proxy: Proxy) -> None:
        super().__init__(instance)
        self.proxy = proxy

    def launch(self, port: int, report: Reporter) -> Launch:
        launch = super().launch(port, report)
        (hidden,) = ports.pick(1, taken=[port, self.proxy.port])
        self.proxy.target = hidden
        settings = self.home / "server.properties"
        lines = dict(line.split("=", 1) for line in settings.read_text().splitlines() if "=" in line)
        more = {
            "listeners": f"{lines['listeners']},PROXIED://{ports.HOST}:{hidden}",
            "advertised.listeners": f"{lines['advertised.listeners']},PROXIED://{ports.HOST}:{self.proxy.port}",
            "listener.security.protocol.map": f"{lines['listener.security.protocol.map']},PROXIED:PLAINTEXT",
        }
        with settings.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in more.items())
        return launch


@dataclass(frozen=True)
class Servers:
    """The servers of all scenarios: `kafka_address` is direct, `proxied_address` goes through the proxy.

    Hold `milvus_lock` while Milvus is down on purpose: otherwise the probe restarts it.
    """

    kafka: Server
    milvus: Server
    milvus_lock: threading.Lock
    proxy: Proxy
    kafka_address: str
    proxied_address: str
    milvus_address: str


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Run servers for this suite only, because it kills them; Milvus is standalone where that is available."""
    try:
        require_platform()
    except EmbeddedError:
        stack = Stack(folder, milvus="lite", environ={})
    else:
        stack = Stack(folder, milvus="standalone", environ={})
    closing = threading.Event()
    proxy = Proxy()
    kafka = _ProxiedKafka(stack.instance, proxy)
    stack._wanted["kafka"] = kafka
    try:
        addresses = stack.up()
        assert addresses.kafka is not None and addresses.milvus is not None
        proxied = f"{ports.HOST}:{proxy.port}"
        running = Servers(kafka, stack.milvus, threading.Lock(), proxy, addresses.kafka, proxied, addresses.milvus)
        threading.Thread(target=_probe_milvus, args=(running, closing), daemon=True).start()
        yield running
    finally:
        closing.set()
        proxy.close()
        stack.down(wipe=True)


def _probe_milvus(servers: Servers, closing: threading.Event) -> None:
    """Restart Milvus when it stays unhealthy, as a liveness probe does: after a pause it may not recover by itself."""
    healthy = time.monotonic()
    while not closing.wait(2):
        with servers.milvus_lock:
            if closing.is_set() or servers.milvus.healthy():
                healthy = time.monotonic()
            elif time.monotonic() - healthy > MILVUS_RESTART_AFTER_S:
                servers.milvus.kill()
                servers.milvus.start()
