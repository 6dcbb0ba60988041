"""The two towers in Paddle, for training; `model.fusion.towers` computes the same in NumPy.

Weights are initialised and returned as NumPy arrays, so that only the seed decides them. Only functions that exist in
both Paddle 2.6 and 3.x are called.
"""

from __future__ import annotations

import numpy as np

from configs.schema import FusionNetwork
from model.arrays import FloatArray, IdMatrix
from model.fusion.profiles import AGES, GENDERS, JOBS
from model.fusion.towers import ATTRIBUTES, EPSILON, widths, windows
from model.fusion.vocabulary import PADDING, FilmInputs, Vocabulary
from model.training.backend import F, Tensor, paddle

#: Cosine of the two biases before training, about a mean rating divided by the largest.
_FIRST_COSINE = 0.7
#: Mean length of an id's embedding before training, beside 1 for the bias.
_FIRST_LENGTH = 0.1


def initial_weights(network: FusionNetwork, vocabulary: Vocabulary, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Return initial weights of both towers by name, except the tables of ids; see `model.fusion.towers`."""
    D, A, E, W = network.dim, network.attribute_dim, network.word_dim, network.filters
    rows = {"gender": len(GENDERS), "age": len(AGES), "job": len(JOBS), "genre": len(vocabulary.genres)}
    weights = {name: _normal(rng, number, A, _FIRST_LENGTH) for name, number in rows.items()}
    weights |= {f"{name}_map": _normal(rng, A, D) for name in rows}
    weights |= {"user_map": _normal(rng, network.id_dim, D), "film_map": _normal(rng, network.id_dim, D)}
    weights["word"] = _normal(rng, vocabulary.word_rows, E)
    weights["word"][PADDING] = 0
    for width in network.windows:
        weights[f"window{width}"] = _normal(rng, width * E, W)
        weights[f"window{width}_bias"] = np.zeros(W, np.float32)
    weights["title_map"] = _normal(rng, len(network.windows) * W, D, _FIRST_LENGTH)
    common, other = (_normal(rng, 1, D)[0] for _ in range(2))
    other -= other @ common / (common @ common) * common
    first = _FIRST_COSINE * common / np.linalg.norm(common)
    second = np.sqrt(1 - _FIRST_COSINE**2) * other / np.linalg.norm(other)
    weights["user_bias"] = (common / np.linalg.norm(common)).astype(np.float32)
    weights["film_bias"] = (first + second).astype(np.float32)
    return weights


def initial_ids(rows: int, network: FusionNetwork, rng: np.random.Generator) -> FloatArray:
    """Return initial embeddings of ids, (rows + 1, I); row 0 is that of a new user or film."""
    table = _normal(rng, rows + 1, network.id_dim, _FIRST_LENGTH)
    table[0] = 0
    return table


def _normal(rng: np.random.Generator, rows: int, columns: int, length: float = 1.0) -> FloatArray:
    """Return normal numbers: rows of an embedding with this mean length, or a map that keeps lengths."""
    values: FloatArray = rng.standard_normal((rows, columns), dtype=np.float32)
    values *= np.float32(length * columns**-0.5)
    return values


def user_vectors(weights: dict[str, Tensor], ids: Tensor, attributes: IdMatrix) -> Tensor:
    """Return users' vectors, (n, D), of length 1.

    Args:
        ids: (n, I) embeddings of their ids; attributes: (n, 3), positions as in `Profile`.
    """
    total = paddle.matmul(ids, weights["user_map"]) + weights["user_bias"]
    for column, name in enumerate(ATTRIBUTES):
        mapped = paddle.matmul(weights[name], weights[f"{name}_map"])  # few rows: mapped before they are looked up
        total = total + F.embedding(paddle.to_tensor(attributes[:, column]), mapped)
    return _unit(total)


def attribute_length(weights: dict[str, Tensor]) -> Tensor:
    """Return the squared length of what users' attributes add to vectors, summed over all of them, ()."""
    mapped = [paddle.matmul(weights[name], weights[f"{name}_map"]) for name in ATTRIBUTES]
    return sum((vectors * vectors).sum() for vectors in mapped)


def film_vectors(weights: dict[str, Tensor], ids: Tensor, films: FilmInputs) -> Tensor:
    """Return films' vectors, (n, D), of length 1; ids: (n, I) embeddings of their ids."""
    total = paddle.matmul(ids, weights["film_map"]) + weights["film_bias"]
    total = total + paddle.matmul(paddle.to_tensor(films.genres), paddle.matmul(weights["genre"], weights["genre_map"]))
    return _unit(total + paddle.matmul(_title(weights, films.words), weights["title_map"]))


def _title(weights: dict[str, Tensor], words: IdMatrix) -> Tensor:
    """Return the largest value of each filter over a title, (n, T) → (n, windows · filters)."""
    given = words != PADDING
    film = paddle.to_tensor(np.nonzero(given)[0])  # (P,), of each of the P words
    found = []
    for width in widths(weights):
        seen = paddle.to_tensor(windows(words, width)[given])  # (P, width)
        vectors = F.embedding(seen, weights["word"], padding_idx=PADDING).flatten(1)  # (P, width · E)
        values = F.relu(paddle.matmul(vectors, weights[f"window{width}"]) + weights[f"window{width}_bias"])
        # The gradient of a maximum over an axis of padded titles takes a hundred times as long.
        found.append(paddle.geometric.segment_max(values, film))
    return paddle.concat(found, axis=1)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / paddle.sqrt((vectors * vectors).sum(axis=-1, keepdim=True) + EPSILON)
