"""Faults of the disk that holds local copies of topics, and folders that are set aside because they are damaged.

Kafka has all of it. So a damaged folder is no loss: it is renamed, for the operator to look at, and restored. A full
disk is no damage, nor is a folder that this user must not write.
"""

from __future__ import annotations

import errno
import shutil
import time
from pathlib import Path

from configs.errors import FatalError, MindstreamError
from streams.errors import RestartRequired

#: What RocksDB's message, which is all that its errors have, says in each case; and the number of Python's errors.
_FULL = ("No space left on device", "Disk quota exceeded"), (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (
    ("Permission denied", "Operation not permitted", "Read-only file system"),
    (errno.EACCES, errno.EPERM, errno.EROFS),
)
_IN_USE = ("Resource temporarily unavailable", "lock hold by current process"), ()
_DAMAGED = (
    ("Corruption", "No such file or directory", "Is a directory", "Not a directory", "Invalid argument"),
    (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
)
_MARK = ".damaged-"


def is_disk_fault(error: Exception) -> bool:
    """Return whether an error is of RocksDB, whose errors have no class, of the file system, or a wrong value."""
    return type(error) is Exception or isinstance(error, (OSError, ValueError))


def is_damage(error: Exception) -> bool:
    """Return whether an error of RocksDB or of the file system shows that files are damaged or missing."""
    if isinstance(error, ValueError):
        return True
    return not any(_matches(error, kind) for kind in (_FULL, _REFUSED, _IN_USE)) and _matches(error, _DAMAGED)


def disk_error(folder: Path, error: Exception, setting: str) -> MindstreamError:
    """Return what an error of RocksDB or of the file system means for the process, with the remedy.

    Args:
        folder: of the databases.
        error: of RocksDB or of the file system.
        setting: the key of the configuration that names the folder.
    """
    if _matches(error, _FULL):
        return RestartRequired(
            f"the disk of {folder} is full ({error}). Free space, or set {setting} to a folder on a larger disk; "
            "nothing is lost: it is restored from Kafka"
        )
    if _matches(error, _REFUSED):
        return FatalError(
            f"{folder} cannot be used ({error}). Let this user write there, or set another {setting}: it is restored "
            "from Kafka"
        )
    if _matches(error, _IN_USE):
        return RestartRequired(
            f"{folder} is used by another process ({error}). Stop it, or give each process a {setting} of its own"
        )
    return RestartRequired(
        f"{folder} cannot be read or written ({error}). If this is repeated, check its disk, or set another {setting}: "
        "it is restored from Kafka"
    )


def set_aside(folder: Path) -> Path:
    """Rename a damaged folder, and delete the one that was set aside before it.

    Returns:
        The new path.

    Raises:
        OSError: the folder cannot be renamed.
    """
    for older in folder.parent.glob(f"{folder.name}{_MARK}*"):
        shutil.rmtree(older, ignore_errors=True)
    new_path = folder.with_name(f"{folder.name}{_MARK}{time.strftime('%Y%m%dT%H%M%S')}")
    folder.rename(new_path)
    return new_path


def count_damaged(folder: Path) -> int:
    """Return how many folders are set aside: this one, and those in it."""
    return sum(1 for where in (folder.parent.glob(f"{folder.name}{_MARK}*"), folder.glob(f"*{_MARK}*")) for _ in where)


def _matches(error: Exception, kind: tuple[tuple[str, ...], tuple[int, ...]]) -> bool:
    texts, numbers = kind
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in numbers
    return any(text in str(error) for text in texts)
