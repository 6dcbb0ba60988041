"""Sampled softmax over shared negatives, in two forms of the same computation.

`SampledSoftmax` computes value and gradient together in NumPy, for CPUs: half the time of Paddle's operators, which
pass over the large matrix of scores many times. `by_operators` is for accelerators, and what a test compares it with.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from configs.schema import Loss
from model.encoder import NEVER
from model.training.backend import F, Tensor, paddle

FloatArray = npt.NDArray[np.float32]
IdVector = npt.NDArray[np.int64]
IdMatrix = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Terms:
    """What the loss reads beside vectors, all float32.

    Attributes:
        weights: (B, T), share of each target in the loss; the sum over all users is 1; 0 = no target here.
        targets: (B, T), added to the targets' scores: -log q.
        negatives: (B, M), added to the negatives' scores: -log q, or `NEVER` where one is a target of the user.
    """

    weights: FloatArray
    targets: FloatArray
    negatives: FloatArray

    @classmethod
    def of(cls, targets: IdMatrix, negatives: IdVector, log_q: FloatArray, users: int) -> Terms:
        """
        Args:
            targets: (B, T), rows, 0 = none; negatives: (M,), rows; log_q: (N + 1,), of the negatives' distribution.
            users: in the whole batch, of which these B may be a part.
        """
        there = targets > 0
        weights = there / (np.maximum(there.sum(axis=1, keepdims=True), 1) * np.float32(users))
        added = np.broadcast_to(-log_q[negatives], (len(targets), len(negatives))).copy()
        shared = np.flatnonzero(np.isin(negatives, targets))  # few, mostly
        own = (targets[:, :, None] == negatives[shared]).any(axis=1)  # (B, few)
        added[:, shared] = np.where(own, NEVER, added[:, shared])
        return cls(weights.astype(np.float32), -log_q[targets], added)


def sampled_softmax(interests: Tensor, targets: Tensor, negatives: Tensor, terms: Terms, loss: Loss) -> Tensor:
    """Cross entropy of each target among the batch's negatives, a weighted sum over users and targets.

    Args:
        interests: (B, K, D); targets: (B, T, D), vectors of the items clicked next; negatives: (M, D).
        loss: its readout decides what a user is scored with. "max": target and negatives alike by
            (1 - fusion) · largest + fusion · mean of the interests' scores, as serving ranks what the interests find;
            so with "mean", where the caller gives one vector, the history's. "hard": by the target's best interest;
            "soft": by softmax((u · target)^power) of them (label-aware attention, arXiv 1904.08030, section 4.4).
    """
    if loss.readout in ("hard", "soft"):  # the user's vector depends on the target: every pair is an example of its own
        B, T, D = targets.shape
        interests = _label_aware(interests, targets, loss).reshape([B * T, 1, D])
        targets = targets.reshape([B * T, 1, D])
        negatives_added = np.repeat(terms.negatives, T, axis=0)
        terms = Terms(terms.weights.reshape(-1, 1), terms.targets.reshape(-1, 1), negatives_added)
    if interests.place.is_cpu_place():
        interests, targets, negatives = (part.astype("float32") for part in (interests, targets, negatives))
        return SampledSoftmax.apply(interests, targets, negatives, terms, loss)
    return by_operators(interests, targets, negatives, terms, loss)


def routing_variance(routed: Tensor) -> Tensor:
    """Mean over users of Σ_k (variance of interest k's weights over the places of the history)², from (B, K, L).

    The routing regularisation of REMI (arXiv 2302.14532, section 4.3): the squared diagonal of the weights' covariance.
    """
    variance = ((routed - routed.mean(axis=2, keepdim=True)) ** 2).mean(axis=2)  # (B, K)
    return (variance**2).sum(axis=1).mean()


def _label_aware(interests: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    scores = paddle.matmul(targets, interests, transpose_y=True)  # (B, T, K)
    if loss.readout == "hard":
        share = F.one_hot(scores.argmax(axis=2), scores.shape[2])  # (B, T, K)
    else:
        share = F.softmax(scores**loss.power, axis=2)  # (B, T, K)
    return paddle.matmul(share, interests)  # (B, T, D)


def by_operators(interests: Tensor, targets: Tensor, negatives: Tensor, terms: Terms, loss: Loss) -> Tensor:
    """The loss of "max", from Paddle's operators."""
    users = paddle.unbind(interests, axis=1)  # K of (B, D)
    # Paddle's gradient of a maximum over an axis takes a second; maxima of pairs take 30 ms.
    wrong = _largest([paddle.matmul(user, negatives, transpose_y=True) for user in users])  # (B, M)
    right = _largest([paddle.matmul(targets, user.unsqueeze(2)).squeeze(2) for user in users])  # (B, T)
    if loss.fusion and len(users) > 1:
        general = interests.mean(axis=1)  # (B, D)
        wrong = (1 - loss.fusion) * wrong + loss.fusion * paddle.matmul(general, negatives, transpose_y=True)
        right = (1 - loss.fusion) * right + loss.fusion * (targets * general.unsqueeze(1)).sum(axis=2)
    added = paddle.to_tensor(terms.negatives)
    if loss.hardness:
        never = (added < float(NEVER) / 2).astype("float32") * float(NEVER)
        hardness = loss.hardness * wrong.detach() + never  # logarithm of the weights
        added = added + hardness - paddle.logsumexp(hardness, axis=1, keepdim=True) + float(np.log(wrong.shape[1]))
    others = paddle.logsumexp(wrong / loss.temperature + added, axis=1, keepdim=True)  # (B, 1)
    right = right / loss.temperature + paddle.to_tensor(terms.targets)
    # -log(e^right / (e^right + e^others)) = softplus(others - right)
    return (F.softplus(others - right) * paddle.to_tensor(terms.weights)).sum()


def _largest(scores: list[Tensor]) -> Tensor:
    return functools.reduce(paddle.maximum, scores)


class SampledSoftmax(paddle.autograd.PyLayer):  # type: ignore[misc]  # untyped in Paddle 2.6
    """`by_operators` and its gradient, in NumPy."""

    @staticmethod
    def forward(ctx: Any, interests: Tensor, targets: Tensor, negatives: Tensor, terms: Terms, loss: Loss) -> Tensor:
        value, *gradients = loss_and_gradients(interests.numpy(), targets.numpy(), negatives.numpy(), terms, loss)
        ctx.gradients = [paddle.to_tensor(gradient) for gradient in gradients]
        return paddle.to_tensor(value)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient * upstream for gradient in ctx.gradients)


def loss_and_gradients(
    interests: FloatArray, targets: FloatArray, negatives: FloatArray, terms: Terms, loss: Loss
) -> tuple[np.float32, FloatArray, FloatArray, FloatArray]:
    """Value, and its gradients by interests (B, K, D), targets (B, T, D) and negatives (M, D)."""
    scale = np.float32(1 / loss.temperature)
    users = np.ascontiguousarray(interests.transpose(1, 0, 2)) * scale  # (K, B, D)
    general = users.mean(axis=0)  # (B, D)
    fusion = loss.fusion if len(users) > 1 else 0.0  # of one score, mean and largest are the same
    of_best, of_mean = np.float32(1 - fusion), np.float32(fusion)
    of_each = of_mean / np.float32(len(users))
    scores = users @ negatives.T  # (K, B, M)
    largest = functools.reduce(np.maximum, scores)  # (B, M)
    to_target = np.einsum("kbd,btd->kbt", users, targets)  # (K, B, T)
    best = to_target.argmax(axis=0)  # (B, T)
    right = of_best * np.take_along_axis(to_target, best[None], axis=0)[0] + of_mean * to_target.mean(axis=0)
    right += terms.targets
    wrong = of_best * largest + of_mean * (general @ negatives.T) if fusion else largest  # (B, M)

    share = wrong + terms.negatives  # (B, M)
    if loss.hardness:
        hardness = np.where(terms.negatives > NEVER / 2, np.float32(loss.hardness) / scale * wrong, NEVER)
        share += hardness - _log_sum(hardness) + np.float32(np.log(share.shape[1]))
    top = share.max(axis=1, keepdims=True)
    share -= top
    np.exp(share, out=share)
    total = share.sum(axis=1, keepdims=True)
    odds = top + np.log(total) - right  # (B, T)
    value = (np.logaddexp(np.float32(0), odds) * terms.weights).sum(dtype=np.float32)

    # weight · sigmoid(odds), (B, T): minus the gradient by `right`. Beyond ±80 float32 knows no difference to 0 and 1.
    missed = terms.weights / (1 + np.exp(-np.clip(odds, -80, 80)))
    share *= missed.sum(axis=1, keepdims=True) / total  # (B, M), gradient by the negatives' scores
    by_users = np.empty_like(users)
    by_negatives = np.zeros_like(negatives)
    left = np.ones_like(largest, dtype=bool)  # (B, M), where no interest before k is the best: equal ones share nothing
    for k, user in enumerate(users):
        leads = (scores[k] == largest) & left  # (B, M)
        left &= ~leads
        own = np.multiply(leads, of_best, out=scores[k])  # (B, M); fresh memory would take longer
        own += of_each
        own *= share
        by_negatives += own.T @ user
        np.matmul(own, negatives, out=by_users[k])
        by_users[k] -= np.einsum("bt,btd->bd", missed * (of_best * (best == k) + of_each), targets)
    chosen = of_best * users[best, np.arange(len(best))[:, None]] + of_mean * general[:, None]  # (B, T, D)
    by_targets = -missed[:, :, None] * chosen
    return value, np.ascontiguousarray(by_users.transpose(1, 0, 2)) * scale, by_targets, by_negatives


def _log_sum(logits: FloatArray) -> FloatArray:
    """Logarithm of the sum of exponentials along the last axis, which stays."""
    top = logits.max(axis=-1, keepdims=True)
    total: FloatArray = top + np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
    return total
