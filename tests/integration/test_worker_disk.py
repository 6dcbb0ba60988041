"""A worker whose changelog holds other programs' messages, or whose disk fails: it is never stopped for good."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.program import WorkerProgram, http_get
from streams.history import History
from streams.kafka.topics import changelog_topic
from streams.messages.clicks import user_key
from streams.ports import Output
from streams.tools.audit import audit_kafka
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration

USERS = range(1, 401)
AGENT = ("--agents", "clicks")


def _click(site: Site, rounds: int = 1) -> None:
    site.producer.send([site.click(user, 1 + user % 300) for _ in range(rounds) for user in USERS])


def _complete(site: Site, clicks: int) -> bool:
    report = audit_kafka(site.config)
    return report.clicks == clicks and report.ok


def _metric(worker: WorkerProgram, name: str) -> float:
    _, body = http_get(worker.metrics_port, "/metrics")
    return float(next(line.split()[1] for line in body.decode().splitlines() if line.startswith(f"{name} ")))


def _stray_messages(site: Site) -> list[Output]:
    """Return messages of another program: for every partition, with no user's key; and one with a user's.

    Kafka refuses messages without a key while the topic is compacted.
    """
    topic = changelog_topic(site.config.worker.group)
    strays = [(b"\xfe", b"hello"), (b"\xffoffset", b"5"), (b"\xffoffset", None), (b"no user", b"hello")]
    known = next(message for message in site.messages(topic) if message.key == user_key(7))
    outputs = [Output(topic, key, value, partition) for partition in range(4) for key, value in strays]
    return [*outputs, Output(topic, user_key(7), b"hello", known.partition)]


def test_neither_stray_messages_nor_damage_stop_a_worker(site: Site) -> None:
    site.fill_index()
    topic = changelog_topic(site.config.worker.group)
    history = site.data_dir("worker") / "history"

    def log() -> str:
        return site.log("worker").read_text()

    with site.worker(*AGENT) as worker:
        _click(site)
        wait_for(lambda: _complete(site, 400), "the first clicks")
        strays = _stray_messages(site)
        site.producer.send(strays)
        wait_for(lambda: "wrote 1 records again" in log(), "the repair")
        assert _metric(worker, "mindstream_changelog_foreign_messages_total") == len(strays)
        last = [message for message in site.messages(topic) if message.key == user_key(7)][-1]
        assert len(History.from_bytes(last.value or b"").items) == 1
        assert "with key b'\\xfe' is no history record" in log()
        assert _complete(site, 400)
        assert audit_kafka(site.config).changelog_foreign == len(strays) - 4, "all but the tombstones"

    # The stores' files are damaged while the worker is stopped; and it has to read the changelog from the beginning.
    (history / "0" / "CURRENT").write_bytes(b"")
    next((history / "1").glob("MANIFEST-*")).unlink()
    with site.worker(*AGENT) as worker:
        assert "history/0 is damaged (Corruption: " in log()
        assert "history/1 is damaged (IO error: No such file or directory: " in log()
        assert _metric(worker, "mindstream_damaged_stores") == 2
        _click(site)
        wait_for(lambda: _complete(site, 800), "clicks after the damage")
    (history / "changelog-topic-id").write_bytes(b"")
    with site.worker(*AGENT) as worker:
        assert "no valid file changelog-topic-id" in log()
        _click(site)
        wait_for(lambda: _complete(site, 1200), "clicks on a store that was restored in full")

    # A table is damaged while it is used; its last block, which has been read, holds the offset in the changelog.
    with site.worker(*AGENT) as worker:
        for table in (history / "2").glob("*.sst"):
            with table.open("r+b") as file:
                file.write(bytes(1000))
        _click(site)
        assert worker.wait(timeout=60) == 75
        assert "is damaged (Corruption: block checksum mismatch" in log()
    with site.worker(*AGENT):
        wait_for(lambda: _complete(site, 1600), "the clicks that found the damage")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount file systems")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(file: Path) -> None:
    """Fill the file system with a file."""
    with file.open("wb", buffering=0) as opened:
        try:
            while True:
                opened.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC


def test_a_full_disk_loses_nothing_and_is_no_damage(site: Site, small_disk: Path) -> None:
    site.fill_index()
    folder = small_disk / "worker"
    settings = (*AGENT, "--set", f"worker.data_dir={folder}")
    with site.worker(*settings) as worker:
        _click(site)
        wait_for(lambda: _complete(site, 400), "the first clicks")
        _fill(small_disk / "other")
        _click(site, rounds=3)
        assert worker.wait(timeout=60) == 75
    refused = site.run("streams", "worker", *settings)
    assert refused.returncode == 75, refused.stderr
    for text in (site.log("worker").read_text(), refused.stderr):
        assert "is full" in text
        assert "Free space, or set worker.data_dir to a folder on a larger disk" in text
    new_folder = site.run("streams", "worker", *AGENT, "--set", f"worker.data_dir={small_disk / 'new' / 'folder'}")
    assert new_folder.returncode == 75, new_folder.stderr
    assert "is full" in new_folder.stderr
    (small_disk / "other").unlink()
    with site.worker(*settings):
        wait_for(lambda: _complete(site, 1600), "all clicks")
    assert not list(folder.rglob("*.damaged-*"))
