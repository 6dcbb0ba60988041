"""Processes that train together, started by `python -m paddle.distributed.launch`; one process is a team of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.training.backend import paddle


@dataclass(frozen=True)
class Team:
    """This process' place, from 0, among `size` processes. That of rank 0 measures, prints and writes."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> Team:
        """Finds the others, whose addresses the launcher has put into the environment: Gloo between CPUs, NCCL between
        GPUs. Without a launcher this process is alone.
        """
        if paddle.distributed.get_world_size() == 1:
            return cls()
        paddle.distributed.init_parallel_env()
        return cls(paddle.distributed.get_rank(), paddle.distributed.get_world_size())

    @property
    def is_leader(self) -> bool:
        return self.rank == 0

    def agree_on_max(self, *values: float) -> list[float]:
        """The largest value of all processes at each place. Decisions are made on these alone: a process that stopped
        by itself would leave the others waiting for it.
        """
        if self.size == 1:
            return list(values)
        agreed = paddle.to_tensor(np.array(values, np.float64))
        paddle.distributed.all_reduce(agreed, op=paddle.distributed.ReduceOp.MAX)
        return [float(value) for value in agreed.numpy()]
