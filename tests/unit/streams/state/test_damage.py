"""The meaning of errors of RocksDB and of the file system, with texts that they really have."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import FatalError, MindstreamError
from streams.errors import RestartRequired
from streams.state.damage import count_damaged, disk_error, is_damage, is_disk_fault, set_aside

#: Text of an error of RocksDB → whether files are damaged.
ROCKSDB = {
    "Corruption: CURRENT file does not end with newline": True,
    "Corruption: Corruption: IO error: No such file or directory: While open a file for random read: 8.sst": True,
    "IO error: No such file or directory: While opening a file for sequentially reading: MANIFEST-000015": True,
    "IO error: while open a file for lock: /data/0/LOCK: Is a directory": True,
    "IO error: No space left on device: While appending to file: /data/0/8.sst: No space left on device": False,
    "Invalid argument: Found options incompatible with filesystem: IO error: /data/0/CURRENT: Permission denied": False,
    "IO error: While lock file: /data/0/LOCK: Resource temporarily unavailable": False,
    "IO error: lock hold by current process, acquire time 1795825767: /data/0/LOCK: No locks available": False,
    "IO error: While pread offset 0 len 4096: /data/0/8.sst: Input/output error": False,
}
REMEDIES: list[tuple[Exception, type[MindstreamError], str]] = [
    (Exception("IO error: No space left on device"), RestartRequired, "is full .* Free space"),
    (OSError("No space left on device (os error 28)"), RestartRequired, "is full .* Free space"),
    (OSError(28, "No space left on device"), RestartRequired, "is full .* Free space"),
    (Exception("IO error: /data/0/LOG: Permission denied"), FatalError, "Let this user write there"),
    (OSError("Read-only file system (os error 30)"), FatalError, "Let this user write there"),
    (PermissionError(13, "Permission denied"), FatalError, "Let this user write there"),
    (Exception("IO error: While lock file: Resource temporarily unavailable"), RestartRequired, "another process"),
    (Exception("IO error: Input/output error"), RestartRequired, "check its disk"),
]


@pytest.mark.parametrize(("text", "damaged"), ROCKSDB.items())
def test_damage_differs_from_other_faults(text: str, damaged: bool) -> None:
    assert is_disk_fault(Exception(text))
    assert is_damage(Exception(text)) is damaged


def test_a_defect_is_no_fault_of_the_disk() -> None:
    assert not is_disk_fault(TypeError("unsupported key"))
    assert not is_disk_fault(KeyError(0))


@pytest.mark.parametrize(("error", "kind", "text"), REMEDIES)
def test_errors_name_the_remedy(error: Exception, kind: type[MindstreamError], text: str) -> None:
    found = disk_error(Path("/data/0"), error, "worker.data_dir")
    assert type(found) is kind
    assert str(found).startswith(("/data/0 ", "the disk of /data/0 "))
    with pytest.raises(kind, match=text):
        raise found


def test_one_damaged_folder_of_a_name_is_kept(tmp_path: Path) -> None:
    for number in range(3):
        for name in ("0", "1"):
            (tmp_path / "history" / name).mkdir(parents=True)
            (tmp_path / "history" / name / str(number)).touch()
            kept = set_aside(tmp_path / "history" / name)
    assert [path.name for path in kept.iterdir()] == ["2"]
    assert count_damaged(tmp_path / "history") == 2
    set_aside(tmp_path / "history")
    assert count_damaged(tmp_path / "history") == 1
