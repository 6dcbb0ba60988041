"""Adam (arXiv 1412.6980) for the network's weights and, row by row, for the table of item embeddings.

Paddle's sparse gradients with its lazy Adam take three times as long as `ItemTable` for the same result: they look up,
normalise and merge every occurrence of an item, whereas this table does it once for each item of a batch. And because
both optimizers are here, a checkpoint is a few named arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from model.arrays import FloatArray, IdVector
from model.training.backend import Tensor, paddle

#: Arrays by name.
State = dict[str, npt.NDArray[Any]]

#: Paddle's defaults.
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def _adam(value: Tensor, gradient: Tensor, first: Tensor, second: Tensor, rate: float, step: int) -> tuple[Tensor, ...]:
    """Return the next value and moments; `step` counts from 1."""
    first = BETA1 * first + (1 - BETA1) * gradient
    second = BETA2 * second + (1 - BETA2) * gradient * gradient
    scale = rate * np.sqrt(1 - BETA2**step) / (1 - BETA1**step)
    return value - float(scale) * first / (paddle.sqrt(second) + EPSILON), first, second


class Adam:
    """Adam for dense weights, which it updates in place."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = dict(weights)
        self._moments = {name: (paddle.zeros_like(w), paddle.zeros_like(w)) for name, w in weights.items()}
        self._steps = 0

    @paddle.no_grad()  # type: ignore[untyped-decorator]
    def update(self, rate: float) -> None:
        """Make a step with learning rate `rate`, and clear the gradients."""
        self._steps += 1
        for name, weight in self._weights.items():
            value, *moments = _adam(weight, weight.grad, *self._moments[name], rate, self._steps)
            weight.set_value(value)
            weight.clear_gradient()
            self._moments[name] = (moments[0], moments[1])

    def state(self) -> State:
        """Return what `restore` needs to resume exactly here, including the weights."""
        state: State = {"steps": np.array(self._steps)}
        for name, weight in self._weights.items():
            for part, tensor in zip(("value", "first", "second"), (weight, *self._moments[name]), strict=True):
                state[f"{name}.{part}"] = np.array(tensor.numpy())
        return state

    def restore(self, state: State) -> None:
        """Restore what `state` returned."""
        self._steps = int(state["steps"])
        for name, weight in self._weights.items():
            weight.set_value(state[f"{name}.value"])
            self._moments[name] = tuple(paddle.to_tensor(state[f"{name}.{part}"]) for part in ("first", "second"))


class ItemTable:
    """N + 1 rows of D numbers, with the moments of a lazy Adam: unused rows keep their moments.

    The table is on Paddle's device. For each batch: look up, differentiate, `update`. No step touches the whole table.
    """

    def __init__(self, values: FloatArray, *, padding: bool = True) -> None:
        """
        Args:
            padding: row 0 is padding, which never changes.
        """
        self._padding = padding
        self._values = paddle.to_tensor(values)
        self._first = paddle.zeros_like(self._values)
        self._second = paddle.zeros_like(self._values)
        self._steps = 0

    def look_up(self, rows: IdVector) -> Tensor:
        """Return the values of (R,) ascending distinct rows as a leaf tensor, (R, D) float32."""
        self._used = paddle.to_tensor(rows)
        self._padded = int(self._padding and rows[0] == 0)
        self._leaf = paddle.gather(self._values, self._used)
        self._leaf.stop_gradient = False
        return self._leaf

    @property
    def gradient(self) -> Tensor:
        """Gradient of the rows that were looked up last, (R, D)."""
        return self._leaf.grad

    @paddle.no_grad()  # type: ignore[untyped-decorator]
    def update(self, rate: float) -> None:
        """Make a step with learning rate `rate` on the rows that were looked up last."""
        self._steps += 1
        first, second = paddle.gather(self._first, self._used), paddle.gather(self._second, self._used)
        changed = _adam(self._leaf, self.gradient, first, second, rate, self._steps)
        for table, rows in zip((self._values, self._first, self._second), changed, strict=True):
            paddle.scatter_(table, self._used[self._padded :], rows[self._padded :])  # in place; padding stays 0

    def values(self) -> Tensor:
        """Return the table itself, (N + 1, D)."""
        return self._values

    def state(self) -> State:
        """Return what `restore` needs to resume exactly here."""
        tables = {"values": self._values, "first": self._first, "second": self._second}
        return {name: np.array(table.numpy()) for name, table in tables.items()} | {"steps": np.array(self._steps)}

    def restore(self, state: State) -> None:
        """Restore what `state` returned."""
        self._steps = int(state["steps"])
        self._values, self._first, self._second = (paddle.to_tensor(state[n]) for n in ("values", "first", "second"))
