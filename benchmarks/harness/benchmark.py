"""What a benchmark is to the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.harness.report import Curve, Figure
from benchmarks.harness.servers import BenchmarkServers, MilvusKind

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark; its module holds it as `BENCHMARK`.

    Attributes:
        run: does it and returns what was measured. It asks the stage for the servers that it needs.
        sizes: how much it does with each Milvus; every size can be set on the command line.
        kafka, milvus: whether it needs them.
        curves: whether it has some among its figures.
    """

    run: Callable[[BenchmarkServers, Sizes], Sequence[Figure | Curve]]
    sizes: Mapping[MilvusKind, Sizes]
    kafka: bool
    milvus: bool
    curves: bool = False

    def servers(self, kind: MilvusKind) -> str:
        """For the report."""
        return ", ".join(["Kafka"] * self.kafka + [f"Milvus {kind}"] * self.milvus)
