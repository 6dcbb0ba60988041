"""The topic that a folder of local databases is a copy of, with the real RocksDB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import FatalError
from streams.state.store import PartitionStores

#: Ids of topics as Kafka makes them.
TOPIC, OTHER_TOPIC = "M5v2LkzXQ7Oj+pPAzW3kRg", "Zq1u0/cSTy2TPhf4dXAmFw"


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[PartitionStores]:
    made = PartitionStores(tmp_path / "history")
    made.own(range(2))
    yield made
    made.close()


def test_a_store_belongs_to_one_changelog_topic(stores: PartitionStores) -> None:
    stores.bind(TOPIC)
    stores.bind(TOPIC)
    with pytest.raises(FatalError, match=r"worker\.data_dir"):
        stores.bind(OTHER_TOPIC)


def test_a_process_that_was_killed_in_bind_can_bind_again(
    stores: PartitionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(file: Path, _text: str) -> None:
        file.touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            stores.bind(TOPIC)
    stores.bind(TOPIC)
    stores.bind(TOPIC)
    assert stores.damaged() == 0


@pytest.mark.parametrize("content", [b"", b"M5v2", b"\xff\xfe" * 11, None])
def test_a_store_that_does_not_say_what_it_copies_is_set_aside(
    stores: PartitionStores, tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    stores.bind(TOPIC)
    stores.write(0, {b"a": b"1"}, [0])
    stores.close()
    file = tmp_path / "history" / "changelog-topic-id"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    again = PartitionStores(tmp_path / "history")
    again.bind(OTHER_TOPIC)
    again.own([0])
    assert again.offset(0) == -1
    assert again.damaged() == 1
    assert f"set it aside as {next(tmp_path.glob('history.damaged-*')).name}" in caplog.text
    with pytest.raises(FatalError, match="copy of another topic"):
        again.bind(TOPIC)
    again.close()
