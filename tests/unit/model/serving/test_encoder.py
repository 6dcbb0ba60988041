"""The serving encoder, compared with the published algorithm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.arrays import FloatArray, IntVector
from model.serving.encoder import Encoder, Routing

D, K, L = 8, 4, 6
PUBLISHED = Routing(
    iterations=3, temperature=1.0, axis="interests", normalise=False, relu=True, residual=0.0, by_history=False
)
UNIT = replace(PUBLISHED, temperature=0.2, normalise=True, relu=False)
RESIDUAL = replace(UNIT, iterations=2, residual=0.5)
CLICKS = replace(UNIT, axis="clicks")
BY_HISTORY = replace(PUBLISHED, by_history=True)
ALL = [PUBLISHED, UNIT, RESIDUAL, CLICKS, BY_HISTORY]


def encoder_of(routing: Routing, seed: int = 0) -> Encoder:
    rng = np.random.default_rng(seed)
    shapes = {"bilinear": (D, D), "start": (K, L), "recency": (L,), "output": (D, D), "bias": (D,)}
    return Encoder({name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}, routing)


def histories(rng: np.random.Generator, users: int) -> tuple[FloatArray, IntVector]:
    lengths = rng.integers(0, L + 1, users)
    embeddings = rng.standard_normal((users, L, D), dtype=np.float32) * np.float32(D**-0.5)
    return embeddings * (np.arange(L) < lengths[:, None])[:, :, None], lengths


def published_algorithm(encoder: Encoder, clicks: FloatArray) -> npt.NDArray[Any]:
    """Encode one user click by click, as the paper describes the algorithm: (n, D) → (K, D)."""
    routing, n = encoder.routing, len(clicks)
    K = max(1, min(encoder.interests, int(np.log2(n)))) if routing.by_history else encoder.interests
    mapped = [encoder.weights["bilinear"].T @ click for click in clicks]
    weight = [np.exp(encoder.weights["recency"][n - 1 - i]) for i in range(n)]
    logits = np.array([[encoder.weights["start"][k, n - 1 - i] for i in range(n)] for k in range(K)], dtype=float)
    for iteration in range(routing.iterations):
        shares = np.exp(logits) * (weight if routing.axis == "clicks" else 1)
        shares /= shares.sum(axis=1 if routing.axis == "clicks" else 0, keepdims=True)
        capsules = []
        for k in range(K):
            total = sum(shares[k, i] * (weight[i] if routing.axis == "interests" else 1) * mapped[i] for i in range(n))
            square = total @ total
            if routing.normalise and iteration == routing.iterations - 1:
                scale = 1 / sum(shares[k, i] * (weight[i] if routing.axis == "interests" else 1) for i in range(n))
            else:
                scale = square / (1 + square) / np.sqrt(square)
            capsules.append(scale * total)
        if iteration < routing.iterations - 1:
            logits += [[capsules[k] @ mapped[i] / routing.temperature for i in range(n)] for k in range(K)]
    mean = sum(w * click for w, click in zip(weight, clicks, strict=True)) / sum(weight)
    interests = []
    for capsule in capsules:
        if routing.residual:
            capsule = capsule + routing.residual * mean
        out = encoder.weights["output"].T @ capsule
        out = np.maximum(out + encoder.weights["bias"], 0) if routing.relu else out
        interests.append(out / np.linalg.norm(out) if routing.normalise else out)
    return np.array(interests + interests[:1] * (encoder.interests - K))


@pytest.mark.parametrize("routing", ALL)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, L))
def test_encoder_equals_the_published_algorithm(routing: Routing, seed: int, n: int) -> None:
    encoder = encoder_of(routing)
    embeddings = np.zeros((1, L, D), np.float32)
    embeddings[0, :n] = np.random.default_rng(seed).standard_normal((n, D)) * D**-0.5
    found = encoder.encode(embeddings, np.array([n]))[0]
    assert found == pytest.approx(published_algorithm(encoder, embeddings[0, :n]), abs=2e-4)


@pytest.mark.parametrize("routing", ALL)
@given(seed=st.integers(0, 2**32 - 1), users=st.integers(0, 9))
def test_a_batch_gives_the_same_interests_as_its_users_one_by_one(routing: Routing, seed: int, users: int) -> None:
    encoder = encoder_of(routing)
    embeddings, lengths = histories(np.random.default_rng(seed), users)
    together = encoder.encode(embeddings, lengths)
    assert together.shape == (users, K, D)
    assert together.dtype == np.float32
    for u in range(users):
        single = encoder.encode(embeddings[u : u + 1], lengths[u : u + 1])
        # Routing amplifies rounding errors: up to 4e-5 in 13,500 users.
        assert together[u] == pytest.approx(single[0], abs=2e-4)


@pytest.mark.parametrize("routing", ALL)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_content_of_padding_is_ignored(routing: Routing, seed: int) -> None:
    rng = np.random.default_rng(seed)
    encoder = encoder_of(routing)
    embeddings, lengths = histories(rng, 5)
    noise = rng.standard_normal(embeddings.shape, dtype=np.float32) * 100
    noisy = np.where((np.arange(L) < lengths[:, None])[:, :, None], embeddings, noise)
    assert encoder.encode(noisy, lengths) == pytest.approx(encoder.encode(embeddings, lengths), abs=1e-5)


@pytest.mark.parametrize("routing", ALL)
def test_a_user_without_clicks_has_zero_vectors(routing: Routing) -> None:
    embeddings, _ = histories(np.random.default_rng(0), 2)
    interests = encoder_of(routing).encode(embeddings, np.array([0, 3]))
    assert not interests[0].any()
    assert interests[1].any()


def test_unit_interests_have_length_one() -> None:
    embeddings, lengths = histories(np.random.default_rng(0), 50)
    for routing in (UNIT, RESIDUAL):
        interests = encoder_of(routing).encode(embeddings, lengths)[lengths > 0]
        assert np.linalg.norm(interests, axis=2) == pytest.approx(1, abs=1e-4)


def test_encoding_is_deterministic() -> None:
    embeddings, lengths = histories(np.random.default_rng(0), 9)
    encoder = encoder_of(UNIT)
    assert (encoder.encode(embeddings, lengths) == encoder.encode(embeddings, lengths)).all()
