"""Array types of all rooms, defined once. Docstrings give the shapes, with the same symbols everywhere.

B users of a batch, K interests, L clicks of history that the model reads, D numbers of a vector, N items of the
catalogue, n items of a list, T targets of a user, M negatives of a batch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: float32 of any shape: vectors, weights, scores, in the type in which they are stored, computed and sent.
FloatArray = npt.NDArray[np.float32]
FloatVector = npt.NDArray[np.float32]  # (n,)
FloatMatrix = npt.NDArray[np.float32]  # (n, D)

#: float64 of any shape: unix times, and means over many values; float32 is too coarse for both.
DoubleArray = npt.NDArray[np.float64]

#: int64 of any shape: item ids, or rows of a table of items.
IdArray = npt.NDArray[np.int64]
IdVector = npt.NDArray[np.int64]  # (n,)
IdMatrix = npt.NDArray[np.int64]  # (B, n), one row for each user

#: int64 that are not ids: counts, offsets, positions.
IntArray = npt.NDArray[np.int64]
IntVector = npt.NDArray[np.int64]  # (n,)
IntMatrix = npt.NDArray[np.int64]  # (B, n)

#: bool of any shape.
Mask = npt.NDArray[np.bool_]
