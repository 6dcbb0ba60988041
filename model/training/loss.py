"""Sampled softmax over shared negatives, in two implementations of the same computation.

`SampledSoftmax` computes value and gradient together in NumPy, for CPUs. It takes half the time of Paddle's operators,
which read the large matrix of scores many times. `by_operators` is for accelerators; a test compares the two.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.schema import Loss
from model.arrays import FloatArray, IdMatrix, IdVector
from model.serving.encoder import LOG_ZERO
from model.training.backend import F, Tensor, paddle

#: Users whose scores are computed together: few enough for their data to stay in the processor's caches.
BLOCK_USERS = 128


@dataclass(frozen=True, eq=False)
class LossTerms:
    """Inputs of the loss other than vectors.

    Attributes:
        weights: (B, T) float32, weight of each target in the loss; the sum over all users is 1; 0 = no target.
        targets: (B, T) float32, added to the targets' scores: -log q.
        negatives: (M,) float32, added to the negatives' scores: -log q.
        own: (P,) users, ascending, and (P,) negatives that are targets of these users: excluded for them.
    """

    weights: FloatArray
    targets: FloatArray
    negatives: FloatArray
    own: tuple[IdVector, IdVector]

    @classmethod
    def from_rows(cls, targets: IdMatrix, negatives: IdVector, log_q: FloatArray, users: int) -> LossTerms:
        """Build the terms of the targets and negatives of B users.

        Args:
            targets: (B, T), rows, 0 = none; negatives: (M,), rows; log_q: (N + 1,), of the negatives' distribution.
            users: number of users in the whole batch, of which these B may be a part.
        """
        given = targets > 0
        weights = given / (np.maximum(given.sum(axis=1, keepdims=True), 1) * np.float32(users))
        return cls(weights.astype(np.float32), -log_q[targets], -log_q[negatives], _equal_rows(targets, negatives))

    def part(self, users: slice) -> LossTerms:
        """Return the terms of a part of the users."""
        inside = slice(*np.searchsorted(self.own[0], (users.start, users.stop)))
        own = self.own[0][inside] - users.start, self.own[1][inside]
        return LossTerms(self.weights[users], self.targets[users], self.negatives, own)

    def per_target(self) -> LossTerms:
        """Return the same terms for B · T users with one target each."""
        T = self.targets.shape[1]
        users = (self.own[0][:, None] * T + np.arange(T)).ravel()
        order = np.argsort(users, kind="stable")
        own = users[order], self.own[1].repeat(T)[order]
        return LossTerms(self.weights.reshape(-1, 1), self.targets.reshape(-1, 1), self.negatives, own)

    def added(self) -> FloatArray:
        """Terms added to the negatives' scores, (B, M) float32: -log q, or `LOG_ZERO` for the user's own targets."""
        added = np.tile(self.negatives, (len(self.weights), 1))
        added[self.own] = LOG_ZERO
        return added


def _equal_rows(targets: IdMatrix, negatives: IdVector) -> tuple[IdVector, IdVector]:
    """Find the pairs of a target, (B, T), and a negative, (M,), with equal rows: users, ascending, and negatives."""
    by_row = np.argsort(negatives, kind="stable")
    sorted_rows, rows = negatives[by_row], targets.ravel()
    first = np.searchsorted(sorted_rows, rows)
    many = np.searchsorted(sorted_rows, rows, side="right") - first  # number of negatives equal to this target
    pair = np.repeat(np.arange(len(rows)), many)
    nth = np.arange(len(pair)) - np.repeat(np.cumsum(many) - many, many)
    return pair // targets.shape[1], by_row[first[pair] + nth]


def sampled_softmax(interests: Tensor, targets: Tensor, negatives: Tensor, terms: LossTerms, loss: Loss) -> Tensor:
    """Return the cross entropy of each target among the batch's negatives, as a weighted sum over users and targets.

    Args:
        interests: (B, K, D); targets: (B, T, D), vectors of the items clicked next; negatives: (M, D).
        loss: `readout` decides how a user is scored. "max": target and negatives by (1 - fusion) · largest + fusion ·
            mean of the interests' scores, as serving ranks recalled items. "mean": the same, with the history's mean
            as the only interest. "hard": by the interest that scores the target highest. "soft": by a mean of the
            interests, weighted with softmax((u · target)^power) (label-aware attention, arXiv 1904.08030, section 4.4).
    """
    if loss.readout in ("hard", "soft"):  # the user's vector depends on the target, so each pair is an example
        B, T, D = targets.shape
        interests = _label_aware(interests, targets, loss).reshape([B * T, 1, D])
        targets = targets.reshape([B * T, 1, D])
        terms = terms.per_target()
    if interests.place.is_cpu_place():
        interests, targets, negatives = (part.astype("float32") for part in (interests, targets, negatives))
        return SampledSoftmax.apply(interests, targets, negatives, terms, loss)
    return by_operators(interests, targets, negatives, terms, loss)


def routing_variance(routed: Tensor) -> Tensor:
    """Return the mean over users of Σ_k (variance of interest k's weights over the history's positions)², of (B, K, L).

    This is the routing regularisation of REMI (arXiv 2302.14532, section 4.3): the squared diagonal of the weights'
    covariance.
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


def by_operators(interests: Tensor, targets: Tensor, negatives: Tensor, terms: LossTerms, loss: Loss) -> Tensor:
    """Return the loss of readout "max", by Paddle's operators. Arguments as `sampled_softmax`."""
    users = paddle.unbind(interests, axis=1)  # K of (B, D)
    # Paddle takes a second for the gradient of a maximum over an axis, and 30 ms for maxima of pairs.
    wrong = _largest([paddle.matmul(user, negatives, transpose_y=True) for user in users])  # (B, M)
    right = _largest([paddle.matmul(targets, user.unsqueeze(2)).squeeze(2) for user in users])  # (B, T)
    if loss.fusion and len(users) > 1:
        mean = interests.mean(axis=1)  # (B, D)
        wrong = (1 - loss.fusion) * wrong + loss.fusion * paddle.matmul(mean, negatives, transpose_y=True)
        right = (1 - loss.fusion) * right + loss.fusion * (targets * mean.unsqueeze(1)).sum(axis=2)
    added = paddle.to_tensor(terms.added())
    if loss.hardness:
        excluded = (added < float(LOG_ZERO) / 2).astype("float32") * float(LOG_ZERO)
        hardness = loss.hardness * wrong.detach() + excluded  # logarithm of the weights
        added = added + hardness - paddle.logsumexp(hardness, axis=1, keepdim=True) + float(np.log(wrong.shape[1]))
    others = paddle.logsumexp(wrong / loss.temperature + added, axis=1, keepdim=True)  # (B, 1)
    right = right / loss.temperature + paddle.to_tensor(terms.targets)
    # -log(e^right / (e^right + e^others)) = softplus(others - right)
    return (F.softplus(others - right) * paddle.to_tensor(terms.weights)).sum()


def _largest(scores: list[Tensor]) -> Tensor:
    return functools.reduce(paddle.maximum, scores)


class SampledSoftmax(paddle.autograd.PyLayer):  # type: ignore[misc]  # untyped in Paddle 2.6
    """`by_operators` and its gradients, in NumPy."""

    @staticmethod
    def forward(
        ctx: Any, interests: Tensor, targets: Tensor, negatives: Tensor, terms: LossTerms, loss: Loss
    ) -> Tensor:
        value, *gradients = loss_and_gradients(interests.numpy(), targets.numpy(), negatives.numpy(), terms, loss)
        ctx.gradients = [paddle.to_tensor(gradient) for gradient in gradients]
        return paddle.to_tensor(value)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient * upstream for gradient in ctx.gradients)


def loss_and_gradients(
    interests: FloatArray, targets: FloatArray, negatives: FloatArray, terms: LossTerms, loss: Loss
) -> tuple[np.float32, FloatArray, FloatArray, FloatArray]:
    """Return the loss, and its gradients with respect to interests (B, K, D), targets (B, T, D), negatives (M, D).

    Variables called `by_x` are gradients with respect to x.
    """
    B, K, _ = interests.shape
    users = interests / np.float32(loss.temperature)
    if loss.fusion and K > 1:  # with one score, mean and largest are equal
        users = np.concatenate([users, users.mean(axis=1, keepdims=True)], axis=1)  # (B, K + 1, D)
    value, by_users, by_targets = np.float32(0), np.empty_like(users), np.empty_like(targets)
    by_negatives = np.zeros_like(negatives)
    for begin in range(0, B, BLOCK_USERS):
        part = slice(begin, begin + BLOCK_USERS)
        found = _block(users[part], targets[part], negatives, terms.part(part), loss, K)
        value += found[0]
        by_users[part], by_targets[part] = found[1:3]
        by_negatives += found[3]
    by_interests = by_users[:, :K]
    if users.shape[1] > K:
        by_interests += by_users[:, K:] / np.float32(K)
    return value, by_interests / np.float32(loss.temperature), by_targets, by_negatives


# Longer than 50 lines: one computation in place, on one large matrix that smaller functions would only hand on.
def _block(
    users: FloatArray, targets: FloatArray, negatives: FloatArray, terms: LossTerms, loss: Loss, K: int
) -> tuple[np.float32, FloatArray, FloatArray, FloatArray]:
    """Return `loss_and_gradients` of b users.

    Args:
        users: (b, R, D), the K interests divided by the temperature, and their mean if the loss uses it (R = K + 1).
    """
    (b, R, D), M = users.shape, len(negatives)
    fused = R > K
    of_mean = np.float32(loss.fusion if fused else 0)
    of_best = 1 - of_mean
    scores = (users.reshape(-1, D) @ negatives.T).reshape(b, R, M)
    largest = scores[:, :K].max(axis=1)  # (b, M)
    to_target = users @ targets.transpose(0, 2, 1)  # (b, R, T)
    best = to_target[:, :K].argmax(axis=1)[:, None]  # (b, 1, T)
    of_scores = np.zeros_like(to_target)  # weights of the interests in a target's score
    np.put_along_axis(of_scores, best, of_best, axis=1)
    if fused:
        of_scores[:, K] = of_mean
    right = (of_scores * to_target).sum(axis=1) + terms.targets  # (b, T)

    share = of_best * largest  # (b, M)
    if fused:
        scores[:, K] *= of_mean
        share += scores[:, K]
    if loss.hardness:
        hardness = share * np.float32(loss.hardness * loss.temperature)
        hardness[terms.own] = LOG_ZERO
        share += hardness - _log_sum_exp(hardness) + np.float32(np.log(M))
    share += terms.negatives
    share[terms.own] = LOG_ZERO
    top = share.max(axis=1, keepdims=True)
    share -= top
    np.exp(share, out=share)
    total = share.sum(axis=1, keepdims=True)
    odds = top + np.log(total) - right  # (b, T)
    value = (np.logaddexp(np.float32(0), odds) * terms.weights).sum(dtype=np.float32)

    # weight · sigmoid(odds), (b, T): minus the gradient of `right`. Beyond ±80, a sigmoid in float32 is 0 or 1.
    missed = terms.weights / (1 + np.exp(-np.clip(odds, -80, 80)))
    share *= missed.sum(axis=1, keepdims=True) / total  # (b, M), gradient of the negatives' scores
    if fused:
        np.multiply(share, of_mean, out=scores[:, K])
        share *= of_best
    # True where no interest before k has the largest score: of equal ones, only the first gets the gradient.
    left = np.ones_like(largest, dtype=bool)
    for k in range(K):
        leads = (scores[:, k] == largest) & left  # (b, M)
        left ^= leads
        np.multiply(share, leads, out=scores[:, k])
    by_scores = scores.reshape(-1, M)
    of_scores *= missed[:, None]  # (b, R, T), minus the gradient of the targets' scores
    by_users = (by_scores @ negatives).reshape(b, R, D) - of_scores @ targets
    return value, by_users, -(of_scores.transpose(0, 2, 1) @ users), by_scores.T @ users.reshape(-1, D)


def _log_sum_exp(logits: FloatArray) -> FloatArray:
    """Return the logarithm of the sum of exponentials along the last axis, which is kept with length 1."""
    top = logits.max(axis=-1, keepdims=True)
    total: FloatArray = top + np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
    return total
