"""Gradients of the serving encoder, in NumPy.

On CPUs, training computes exactly what serving computes, in a third of the time of Paddle's operators, which are slow
for many small matrices. `Mind.by_operators` is the same for accelerators.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from model.arrays import FloatArray, IntVector
from model.serving.encoder import EPSILON, Encoder, Routing, Trace, softmax
from model.training.backend import Tensor, paddle


class Encode(paddle.autograd.PyLayer):  # type: ignore[misc]  # untyped in Paddle 2.6
    """`Encoder.encode`, differentiable with respect to the item vectors, (B, L, D), and to weights of the encoder."""

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, lengths: IntVector, encoder: Encoder, names: list[str], *_: Tensor
    ) -> Tensor:
        """Return interests, (B, K, D).

        The last arguments are the weights called `names`. The encoder has their values already, but Paddle computes
        gradients only of tensors that are arguments.
        """
        clicks = embeddings.numpy()
        trace = encoder.trace(clicks, lengths)
        ctx.inputs, ctx.names = (encoder, trace, clicks, lengths), names
        return paddle.to_tensor(trace.interests)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of item vectors and weights."""
        encoder, trace, clicks, lengths = ctx.inputs
        found = gradients(encoder, trace, clicks, lengths, upstream.numpy())
        return tuple(paddle.to_tensor(found[name]) for name in ("embeddings", *ctx.names))


def gradients(
    encoder: Encoder, trace: Trace, embeddings: FloatArray, lengths: IntVector, by_interests: FloatArray
) -> dict[str, FloatArray]:
    """Return the gradients of "embeddings", (B, L, D), and of each weight, given that of the interests, (B, K, D).

    Agreement is a constant, as in `Mind.by_operators`: gradients pass only through the last softmax over the clicks.
    Variables called `by_x` are gradients with respect to x.
    """
    routing, found = encoder.routing, {}
    B, K, D = by_interests.shape
    by_interests = by_interests * (lengths > 0)[:, None, None]
    if routing.by_history:
        surplus = routing.surplus(lengths, K)[:, :, None]  # (B, K, 1), 1 where the first interest is repeated
        repeated = (by_interests * surplus).sum(axis=1)
        by_interests *= 1 - surplus
        by_interests[:, 0] += repeated
    by_projected = _through_unit(trace.projected, by_interests) if routing.normalise else by_interests
    if routing.relu:
        by_projected = by_projected * (trace.projected > 0)
    flat = by_projected.reshape(-1, D)
    found["bias"] = flat.sum(axis=0)
    found["output"] = trace.mixed.reshape(-1, D).T @ flat
    by_mixed = (flat @ encoder.weights["output"].T).reshape(B, K, D)
    part = np.float32(1 / (1 + routing.residual))
    by_capsules = part * by_mixed
    if not routing.normalise:
        by_capsules = _through_squash(trace.capsules, by_capsules)
    flat = by_capsules.reshape(-1, D)
    found["bilinear"] = (trace.routed @ embeddings).reshape(-1, D).T @ flat
    # From here the history's mean is one more row beside the interests: (B, K + 1, …).
    weights = np.concatenate([trace.routed, trace.share], axis=1)
    by_sums = np.concatenate(
        [
            (flat @ encoder.weights["bilinear"].T).reshape(B, K, D),
            (1 - part) * by_mixed.sum(axis=1, keepdims=True),
        ],
        axis=1,
    )
    found["embeddings"] = weights.transpose(0, 2, 1) @ by_sums
    by_weights = by_sums @ embeddings.transpose(0, 2, 1)

    by_click, by_logits = _through_weights(trace, routing, by_weights)
    age = encoder.age(lengths)  # (B, L)
    given = age >= 0
    by_age = [by_click[given], *by_logits.transpose(1, 0, 2)[:, given]]  # 1 + K of (clicks,)
    sums = np.array([np.bincount(age[given], values, encoder.history_length) for values in by_age], np.float32)
    found["recency"], found["start"] = sums[0], sums[1:]
    return found


def _through_weights(trace: Trace, routing: Routing, by_weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the gradients of the logarithms of the clicks' own weights, (B, L), and of the routing logits, (B, K, L),
    given that of the clicks' weights in interests and mean, (B, K + 1, L).
    """
    by_routed, by_share = by_weights[:, :-1], by_weights[:, -1:]
    by_click = _through_softmax(trace.share, by_share, axis=2)[:, 0]
    if not routing.normalise and routing.axis == "interests":  # a click's shares, multiplied by its weight
        by_click += (by_routed * trace.routed).sum(axis=1)
        shares = softmax(trace.logits, axis=1)
        return by_click, _through_softmax(shares, by_routed * np.exp(trace.log_weight), axis=1)
    by_logits = _through_softmax(trace.routed, by_routed, axis=2)
    by_click += by_logits.sum(axis=1)
    if routing.axis == "interests":  # the gradient passes through the logarithm of the shares
        by_logits -= softmax(trace.logits, axis=1) * by_logits.sum(axis=1, keepdims=True)
    return by_click, by_logits


def _through_softmax(shares: FloatArray, upstream: FloatArray, axis: int) -> FloatArray:
    """Return the gradient of the logits whose softmax is `shares`."""
    product = shares * upstream
    through: FloatArray = product - shares * product.sum(axis=axis, keepdims=True)
    return through


def _through_unit(vectors: FloatArray, upstream: FloatArray) -> FloatArray:
    """Return the gradient of x, through x / √(|x|² + ε)."""
    scale = 1 / np.sqrt(_dot(vectors, vectors) + np.float32(EPSILON))
    unit = vectors * scale
    through: FloatArray = scale * (upstream - unit * _dot(unit, upstream))
    return through


def _through_squash(capsules: FloatArray, upstream: FloatArray) -> FloatArray:
    """Return the gradient of c, through c · s / (1 + s) / √(s + ε) with s = |c|²."""
    square = _dot(capsules, capsules)
    root = 1 / np.sqrt(square + np.float32(EPSILON))
    slope = root / (1 + square) * (1 / (1 + square) - square / (square + np.float32(EPSILON)) / 2)
    through: FloatArray = root * square / (1 + square) * upstream + 2 * slope * _dot(capsules, upstream) * capsules
    return through


def _dot(left: FloatArray, right: FloatArray) -> FloatArray:
    """Return inner products along the last axis, which is kept with length 1."""
    product: FloatArray = np.einsum("...d,...d->...", left, right)[..., None]
    return product
