"""A model as a folder that describes itself: its files, a manifest with their checksums, a version by content.

`model.artifact` and `model.fusion.artifact` are the two kinds; each has a format of its own and refuses the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from configs.errors import InputError

MANIFEST = "manifest.json"


class ArtifactError(InputError):
    """An artifact that cannot be loaded or written. The message names the remedy."""


@dataclass(frozen=True)
class Layout:
    """The content of one kind of artifact.

    Attributes:
        format: version of the layout; readers refuse all others.
        files: names of all files but the manifest.
        identity: keys of the manifest that decide how the files are used, "format" and "sha256" among them. The model
            version is a hash of them, so of all files.
        remedy: how to make a new artifact.
    """

    format: int | str
    files: tuple[str, ...]
    identity: tuple[str, ...]
    remedy: str

    def read(self, folder: Path, *, verify: bool) -> dict[str, Any]:
        """Return the manifest. With `verify`, read every byte of the files and compare the checksums.

        Raises:
            ArtifactError: the artifact is missing, damaged or of another format.
        """
        manifest = self._read_manifest(folder)
        if verify:
            self._verify(folder, manifest)
        return manifest

    def write(
        self,
        folder: Path,
        write_files: Callable[[Path], None],
        described: Mapping[str, Any],
        recorded: Mapping[str, Any],
    ) -> None:
        """Write an artifact under a temporary name, then rename it; an older artifact there is replaced.

        Args:
            write_files: writes `files` into the folder that it is given.
            described: the keys of `identity`, except format and checksums. recorded: other keys of the manifest.

        Raises:
            ArtifactError: the folder holds something else.
        """
        check_target(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_draft(folder) as draft:
            write_files(draft)
            manifest = {
                "format": self.format,
                **described,
                "sha256": {name: _sha256(draft / name) for name in self.files},
                "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                **recorded,
            }
            manifest["model_version"] = self._version_of(manifest)
            (draft / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            _replace_folder(draft, folder)

    def _read_manifest(self, folder: Path) -> dict[str, Any]:
        if not (folder / MANIFEST).is_file():
            raise ArtifactError(f"{folder}: no artifact here ({MANIFEST} is missing); check the path, or {self.remedy}")
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            found = manifest["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{folder}: {MANIFEST} is damaged ({error!r}); copy it again, or {self.remedy}"
            ) from None
        if found != self.format:
            raise ArtifactError(f"{folder}: format {found}, this version reads format {self.format}; {self.remedy}")
        complete = {*self.identity, "model_version"} <= manifest.keys()
        if not complete or manifest["model_version"] != self._version_of(manifest):
            raise ArtifactError(f"{folder}: {MANIFEST} was changed after training; copy it again, or {self.remedy}")
        return dict(manifest)

    def _verify(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        for name in self.files:
            try:
                intact = _sha256(folder / name) == manifest["sha256"].get(name)
            except OSError as error:
                raise ArtifactError(f"{folder}: {name} cannot be read ({error.strerror}); copy it again") from None
            if not intact:
                raise ArtifactError(f"{folder}: {name} does not match its checksum; copy it again, or {self.remedy}")

    def _version_of(self, manifest: Mapping[str, Any]) -> str:
        content = json.dumps({key: manifest[key] for key in self.identity}, sort_keys=True)
        return "m" + hashlib.sha256(content.encode()).hexdigest()[:12]


def check_target(path: Path | str) -> None:
    """Raise ArtifactError if `path` holds anything but an artifact or an empty folder."""
    folder = Path(path).resolve()
    if not folder.exists() or (folder.is_dir() and ((folder / MANIFEST).is_file() or not any(folder.iterdir()))):
        return
    raise ArtifactError(f"{folder}: exists, is not an artifact, and is not replaced; choose another folder (--out)")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _temporary_draft(folder: Path) -> Iterator[Path]:
    """Yield a draft folder beside `folder`, so that the rename stays on one file system; it is removed afterwards."""
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        (work / "draft").mkdir()  # mkdtemp's folder is closed to other users; the artifact must follow the umask
        yield work / "draft"
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _replace_folder(draft: Path, folder: Path) -> None:
    old = draft.parent / "old"
    try:
        if folder.exists():
            folder.replace(old)
        draft.replace(folder)
    except BaseException:  # Ctrl-C too
        if old.exists() and not folder.exists():
            old.replace(folder)
        raise
