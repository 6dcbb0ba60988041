"""The interface between the command line and a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.harness.report import Curve, Figure
from benchmarks.harness.servers import BenchmarkServers, MilvusKind

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark; each module has one, `BENCHMARK`.

    Attributes:
        run: measures, and returns figures and curves. It starts the servers that it needs.
        sizes: name → size, for each kind of Milvus; the command line can change every one.
        kafka, milvus: which servers it needs.
        curves: whether it returns curves.
    """

    run: Callable[[BenchmarkServers, Sizes], Sequence[Figure | Curve]]
    sizes: Mapping[MilvusKind, Sizes]
    kafka: bool
    milvus: bool
    curves: bool = False

    def servers(self, kind: MilvusKind) -> str:
        """Return the names of its servers, for the report."""
        return ", ".join(["Kafka"] * self.kafka + [f"Milvus {kind}"] * self.milvus)
