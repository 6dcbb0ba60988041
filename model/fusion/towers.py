"""The two towers in NumPy: attributes → a user's vector, a film's genres and title → its vector.

Both vectors have length 1, so their inner product is the cosine; 5 · cosine is the predicted rating.

Weights by name; I numbers of an id's embedding, A of an attribute's, E of a word's, W filters, D numbers of a vector:

    gender, age, job, genre    embeddings, (rows, A); gender_map, …: (A, D)
    user_map, film_map         (I, D)
    word                       (V, E), row 0 = padding, row 1 = unknown words
    window2, window2_bias, …   (2 E, W) and (W,), for each width of the window on the title
    title_map                  (windows · W, D)
    user_bias, film_bias       (D,)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from model.arrays import FloatArray, FloatMatrix, IdMatrix
from model.fusion.vocabulary import PADDING, FilmInputs

#: Attributes of a user, in the order of `Profile`.
ATTRIBUTES = ("gender", "age", "job")
#: Added to squared lengths, so that a zero vector has a gradient.
EPSILON = 1e-12
#: The predicted rating is this many times the cosine.
SCALE = 5.0


def user_vectors(weights: Mapping[str, FloatArray], ids: FloatMatrix, attributes: IdMatrix) -> FloatMatrix:
    """Return users' vectors, (n, D) float32, of length 1.

    Args:
        ids: (n, I) embeddings of their ids; attributes: (n, 3), positions as in `Profile`.
    """
    total = ids @ weights["user_map"] + weights["user_bias"]
    for column, name in enumerate(ATTRIBUTES):
        total = total + (weights[name] @ weights[f"{name}_map"])[attributes[:, column]]
    return _unit(total)


def film_vectors(weights: Mapping[str, FloatArray], ids: FloatMatrix, films: FilmInputs) -> FloatMatrix:
    """Return films' vectors, (n, D) float32, of length 1; ids: (n, I) embeddings of their ids."""
    total = ids @ weights["film_map"] + weights["film_bias"]
    total = total + films.genres @ (weights["genre"] @ weights["genre_map"])
    return _unit(total + _title(weights, films.words) @ weights["title_map"])


def widths(names: Mapping[str, object]) -> list[int]:
    """Return the widths of the windows on the title, by the names of the weights."""
    found = [name.removeprefix("window") for name in names if name.startswith("window")]
    return sorted(int(width) for width in found if width.isdecimal())


def windows(words: IdMatrix, width: int) -> npt.NDArray[np.int64]:
    """Return the words in the windows that begin at each word, (n, T) → (n, T, width); those at the end are padded."""
    padded = np.pad(words, ((0, 0), (0, width - 1)), constant_values=PADDING)
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(padded, width, axis=1))


def _title(weights: Mapping[str, FloatArray], words: IdMatrix) -> FloatMatrix:
    """Return the largest value of each filter over a title, (n, T) → (n, windows · W)."""
    given = words != PADDING
    first = np.flatnonzero(np.diff(np.nonzero(given)[0], prepend=-1))  # (n,) of each title's words
    found = []
    for width in widths(weights):
        vectors = weights["word"][windows(words, width)[given]].reshape(given.sum(), -1)
        values = np.maximum(vectors @ weights[f"window{width}"] + weights[f"window{width}_bias"], 0)
        found.append(np.maximum.reduceat(values, first))
    return np.concatenate(found, axis=1)


def _unit(vectors: FloatMatrix) -> FloatMatrix:
    unit: FloatMatrix = vectors / np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True) + np.float32(EPSILON))
    return unit
