"""Read users to evaluate on, from files in either format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.data.clicks import Holdout, hold_out, is_valid_format, read_clicks, read_holdout
from model.data.files import DataError
from model.data.malformed import MalformedLines
from model.data.reader import Order


def read_users(paths: Sequence[Path], malformed: MalformedLines | None = None, order: Order = "auto") -> Holdout:
    """Read users from files in the valid format, or from files in the train format, with clicks split by `hold_out`.

    Raises:
        DataError: a file cannot be read, the formats are mixed, or there are no users to evaluate on.
    """
    formats = {is_valid_format(path) for path in paths}
    if len(formats) > 1:
        raise DataError("test files in both formats: evaluate them separately, or convert one format into the other")
    if formats == {True}:
        users = read_holdout(paths, malformed)
        needed = "lines with an eval_item:"
    else:
        users = hold_out(read_clicks(paths, malformed, order))
        needed = "users with at least two clicks"
    if not len(users.history):
        raise DataError(f"{', '.join(map(str, paths))}: no users to evaluate on; expected {needed}")
    return users
