"""The data of one run, from click files: clicks to train on, as rows of the item table, and users to measure on."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from configs.schema import TrainingData
from configs.text import count
from model.arrays import IdVector, IntVector
from model.data.clicks import Clicks, Holdout, hold_out, read_clicks, split_users
from model.data.malformed import SETTING, MalformedLines
from model.data.users import read_users


class TrainingSet(NamedTuple):
    """Data of a run.

    Attributes:
        clicks: clicks with table rows, 1 … N, in the order of the item ids; row 0 is padding.
        item_ids: (N,) int64, ascending; counts: (N,) int64, clicks of each item.
        held: users to measure on, with item ids; may be empty.
        malformed: the lines that were left out.
    """

    clicks: Clicks
    item_ids: IdVector
    counts: IntVector
    held: Holdout
    malformed: MalformedLines

    @classmethod
    def read(cls, data: TrainingData, seed: int) -> TrainingSet:
        """Read click files; `seed` decides which users are held out.

        Raises:
            DataError: files cannot be read.
        """
        malformed = MalformedLines(data.malformed, SETTING)
        clicks = read_clicks(data.paths, malformed, data.order)
        if data.valid_paths:
            held = read_users(data.valid_paths, malformed, data.order)
        else:
            clicks, others = split_users(clicks, data.valid_fraction, np.random.default_rng(seed))
            held = hold_out(others)
        item_ids, rows, counts = np.unique(clicks.items, return_inverse=True, return_counts=True)
        numbered = Clicks(clicks.users, clicks.offsets, rows.reshape(-1) + 1)
        return cls(numbered, item_ids, counts.astype(np.int64), held, malformed)

    def sample_held(self, max_users: int, seed: int) -> Holdout:
        """Return at most `max_users` of the users to measure on, drawn at random."""
        users = len(self.held.history)
        if users <= max_users:
            return self.held
        index = np.sort(np.random.default_rng(seed).choice(users, max_users, replace=False))
        return Holdout(self.held.history.take(index), self.held.targets.take(index))

    def fingerprint(self) -> str:
        """Return a hash of the data that training and measuring use, whatever files they were read from."""
        digest = hashlib.sha256(self.item_ids.tobytes())
        for clicks in (self.clicks, *self.held):
            digest.update(clicks.offsets.tobytes() + clicks.items.tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        clicks = self.clicks
        sizes = f"{count(len(clicks.items), 'click')} of {count(len(clicks), 'user')}"
        return "\n".join([f"{sizes} on {count(len(self.item_ids), 'item')}", *map(str, self.malformed.skipped)])
