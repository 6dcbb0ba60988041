"""The topic that a folder of local databases is a copy of."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from configs.errors import FatalError
from streams.state.damage import disk_error, set_aside

_LOG = logging.getLogger("mindstream.store")

#: File with the id of the topic.
_FILE = "changelog-topic-id"
#: The form of Kafka's topic ids: 16 bytes as base64.
_TOPIC_ID = re.compile(r"[A-Za-z0-9+/_-]{22}")


def bind(folder: Path, topic_id: str, setting: str) -> None:
    """Record that a folder is a copy of this topic; `setting` is the key that names the folder.

    A folder that has databases and no valid id is set aside.

    Raises:
        FatalError: it is a copy of another topic, or cannot be used; the message names the remedy.
        RestartRequired: the disk is full.
    """
    try:
        bound = _bound_topic_id(folder)
        if bound is None:
            folder.mkdir(parents=True, exist_ok=True)
            # Write atomically: a partially written id would set the folder aside.
            new_file = folder / f"{_FILE}.new"
            new_file.write_text(topic_id)
            new_file.replace(folder / _FILE)
    except OSError as error:
        raise disk_error(folder, error, setting) from error
    if bound not in (None, topic_id):
        raise FatalError(
            f"{folder} is a copy of another topic (the topic was deleted and created again, or this is another "
            f"cluster). Set another {setting}, or delete this folder: it is restored from Kafka"
        )


def _bound_topic_id(folder: Path) -> str | None:
    """Return the topic id that was recorded; None for a new folder, or if the folder has been set aside."""
    file = folder / _FILE
    if not folder.exists():
        return None
    if folder.is_dir() and not file.exists() and not any(path.name.isdigit() for path in folder.iterdir()):
        return None  # no database yet: a process may have been killed before it recorded the id
    found = file.read_bytes().decode(errors="replace") if file.is_file() else ""
    if _TOPIC_ID.fullmatch(found):
        return found
    new_path = set_aside(folder)
    _LOG.warning(
        "%s has no valid file %s, which says what it is a copy of; set it aside as %s. It is restored from Kafka",
        folder,
        _FILE,
        new_path.name,
    )
    return None
