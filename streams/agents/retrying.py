"""Retry with growing waits."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits between tries, in seconds: `first`, doubled up to `longest`, with jitter; `budget` for all of them."""

    first: float
    longest: float
    budget: float

    def waits(self, rng: random.Random) -> Any:
        """The waits, without end. Full jitter on the upper half, so that workers do not return all at once."""
        wait = self.first
        while True:
            yield wait * rng.uniform(0.5, 1.0)
            wait = min(self.longest, 2 * wait)
