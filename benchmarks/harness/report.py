"""Results of benchmarks, printed and written together with machine, commit and command."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import psutil

from embedded.instance import CHECKOUT

#: Seconds for one git command: the index may be on a slow disk.
_GIT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, in `unit`."""

    name: str
    value: float
    unit: str

    def to_text(self) -> str:
        return f"  {self.name:56} {_number(self.value):>12} {self.unit}"


@dataclass(frozen=True, slots=True)
class Curve:
    """Measured pairs; each label has name and unit, as in "recall@50, %"."""

    name: str
    x_label: str
    y_label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one benchmark.

    Attributes:
        benchmark: its name.
        servers: the servers that it ran on, for example "Kafka, Milvus standalone"; empty if it needs no server.
        sizes: name → size.
        figures, curves: what was measured.
        load_before, load_after: load averages over one minute; other work on the machine makes figures worse.
    """

    benchmark: str
    servers: str
    sizes: Mapping[str, int]
    figures: Sequence[Figure]
    load_before: float
    load_after: float
    curves: Sequence[Curve] = ()

    def to_text(self) -> str:
        sizes = ", ".join(f"{name} {size:,}" for name, size in self.sizes.items())
        where = f" on {self.servers}" if self.servers else ""
        head = f"{self.benchmark}{where} ({sizes}; load average {self.load_before:.1f} → {self.load_after:.1f})"
        return "\n".join([head, *(figure.to_text() for figure in self.figures)])


@dataclass(frozen=True, slots=True)
class Provenance:
    """Machine, commit and command that figures come from.

    Attributes:
        cpu: name of the processor.
        cores: number of logical cores.
        memory: bytes.
        commit: commit of the checkout, with "dirty" if it has changes.
        command: as typed, to repeat the run.
        began: start of the run, ISO 8601, UTC.
    """

    cpu: str
    cores: int
    memory: int
    system: str
    python: str
    commit: str
    command: str
    began: str

    @classmethod
    def capture(cls, command: str) -> Provenance:
        """Return the provenance of figures measured now, on this machine and this checkout."""
        return cls(
            cpu=cpu_model(),
            cores=os.cpu_count() or 1,
            memory=psutil.virtual_memory().total,
            system=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            commit=commit(CHECKOUT),
            command=command,
            began=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

    def to_text(self) -> str:
        return (
            f"machine  {self.cpu}, {self.cores} cores, {self.memory / 2**30:.1f} GiB; "
            f"{self.system}, Python {self.python}\n"
            f"commit   {self.commit}\n"
            f"command  {self.command}"
        )


def to_json(provenance: Provenance, results: Sequence[Result]) -> str:
    """Return everything as one JSON object, values with their units."""
    return (
        json.dumps(dataclasses.asdict(provenance) | {"results": [dataclasses.asdict(r) for r in results]}, indent=2)
        + "\n"
    )


def percentiles(name: str, seconds: Sequence[float], quantiles: Sequence[int]) -> list[Figure]:
    """Return percentiles in milliseconds, by linear interpolation; 100 is called max.

    Raises:
        ValueError: there are no values.
    """
    if not seconds:
        raise ValueError(f"no values for {name}")
    values = np.percentile(np.asarray(seconds, dtype=np.float64), quantiles) * 1000
    names = ["max" if q == 100 else f"p{q}" for q in quantiles]
    return [Figure(f"{name}, {label}", float(value), "ms") for label, value in zip(names, values, strict=True)]


def commit(folder: Path) -> str:
    """Return the commit of a checkout, with " dirty" if it has changes; "unknown" outside of git."""
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return "unknown"
    return f"{head} dirty" if _git(folder, "status", "--porcelain") else head


def cpu_model() -> str:
    """Return the processor's name, as precise as the system knows it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model"):
                return value.strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - the user's git
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _number(value: float) -> str:
    """Return three significant digits, or all before the point if these are more."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
