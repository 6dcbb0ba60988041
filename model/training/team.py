"""Processes that train together, started by `python -m paddle.distributed.launch`; or a single process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.training.backend import paddle


@dataclass(frozen=True)
class Team:
    """The rank of this process, from 0, among `size` processes. The leader, rank 0, measures, prints and writes."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> Team:
        """Connect to the other processes, whose addresses the launcher put into the environment.

        They communicate by Gloo between CPUs, and by NCCL between GPUs. Without a launcher, this is a team of one.
        """
        if paddle.distributed.get_world_size() == 1:
            return cls()
        paddle.distributed.init_parallel_env()
        return cls(paddle.distributed.get_rank(), paddle.distributed.get_world_size())

    @property
    def is_leader(self) -> bool:
        """Return whether this is the process that measures, prints and writes."""
        return self.rank == 0

    def agree_on_max(self, *values: float) -> list[float]:
        """Return the largest of each value over all processes.

        Decisions depend only on such values: a process that stopped by itself would leave the others waiting for it.
        """
        if self.size == 1:
            return list(values)
        agreed = paddle.to_tensor(np.array(values, np.float64))
        paddle.distributed.all_reduce(agreed, op=paddle.distributed.ReduceOp.MAX)
        return [float(value) for value in agreed.numpy()]
