"""What one run trains and measures on: click files, numbered as rows of the item table."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from configs.schema import TrainingData
from model.arrays import IdVector
from model.data.clicks import Clicks, Holdout, hold_out, read_clicks, split_users
from model.data.users import read_users


class TrainingSet(NamedTuple):
    """Attributes:
    clicks: of table rows, 1 … N, in the order of the item ids; row 0 is padding.
    item_ids: (N,) int64 ascending; counts: (N,) int64, clicks of each.
    held: users to measure on, with item ids; none, when no measurement is asked for.
    """

    clicks: Clicks
    item_ids: IdVector
    counts: IdVector
    held: Holdout

    @classmethod
    def read(cls, data: TrainingData, seed: int) -> TrainingSet:
        """`seed`: of the choice of users to hold out.

        Raises:
            DataError: files cannot be read.
        """
        clicks = read_clicks(data.paths, malformed=data.malformed)
        if data.valid_paths:
            held = read_users(data.valid_paths, data.malformed)
        else:
            clicks, others = split_users(clicks, data.valid_fraction, np.random.default_rng(seed))
            held = hold_out(others)
        item_ids, rows, counts = np.unique(clicks.items, return_inverse=True, return_counts=True)
        numbered = Clicks(clicks.users, clicks.offsets, rows.reshape(-1) + 1, clicks.malformed)
        return cls(numbered, item_ids, counts.astype(np.int64), held)

    def sample_held(self, most: int, seed: int) -> Holdout:
        """At most `most` of the users to measure on, drawn."""
        users = len(self.held.history)
        if users <= most:
            return self.held
        index = np.sort(np.random.default_rng(seed).choice(users, most, replace=False))
        return Holdout(self.held.history.take(index), self.held.targets.take(index))

    def fingerprint(self) -> str:
        """Of all that training and measuring see; the same for the same clicks from whatever files."""
        digest = hashlib.sha256(self.item_ids.tobytes())
        for clicks in (self.clicks, *self.held):
            digest.update(clicks.offsets.tobytes() + clicks.items.tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        clicks, malformed = self.clicks, self.clicks.malformed
        skipped = f", {malformed:,} malformed lines skipped" if malformed else ""
        return f"{len(clicks.items):,} clicks of {len(clicks):,} users on {len(self.item_ids):,} items{skipped}"
