"""One optimizer step on one batch, in one process or several, and the state that is needed to resume from there."""

from __future__ import annotations

import numpy as np

from configs.schema import TrainConfig
from model.arrays import FloatArray, FloatVector, IntVector
from model.training.backend import F, Tensor, paddle
from model.training.loss import LossTerms, routing_variance, sampled_softmax
from model.training.net import Mind, initial_table, initial_weights, item_vectors
from model.training.optimizer import Adam, ItemTable, State
from model.training.sampling import TrainingBatch


class Learner:
    """Network, item table and their optimizers.

    Processes that train together use slices of the same batch and sum their gradients. Each looks up the rows of the
    whole batch, so that gradients have the same shape in all processes, and all keep the same weights.
    """

    def __init__(
        self, config: TrainConfig, items: int, log_q: FloatVector, *, rank: int = 0, processes: int = 1
    ) -> None:
        """
        Args:
            items: N, items of rows 1 … N; log_q: (N + 1,), `Sampler.log_q`.
            rank: number of this process, from 0; processes: how many processes train together.
        """
        rng = np.random.default_rng(config.training.seed)
        self._config, self._log_q = config, log_q
        self._rank, self._processes = rank, processes
        self._table = ItemTable(initial_table(config.network, items, rng))
        penalised = config.loss.routing_variance > 0
        self._net = Mind(initial_weights(config.network, rng), config.network, agreement_learns=penalised)
        self._trained = {name: weight for name, weight in self._net.named_parameters() if not weight.stop_gradient}
        self._adam = Adam(self._trained)

    def step(self, batch: TrainingBatch, rate: float) -> float:
        """Make a step of Adam with learning rate `rate`; return the loss before it."""
        used, positions = np.unique(
            np.concatenate([batch.histories.ravel(), batch.targets.ravel(), batch.negatives]), return_inverse=True
        )
        vectors = item_vectors(self._table.look_up(used), self._config.network)  # (R, D)
        loss = self._loss(batch, vectors, positions.reshape(-1))
        loss.backward()
        value = self._sum_over_processes(loss)
        self._table.update(rate)
        self._adam.update(rate)
        return value

    def _loss(self, batch: TrainingBatch, vectors: Tensor, positions: IntVector) -> Tensor:
        """Return the loss of this process' users.

        Args:
            vectors: (R, D), one for each item of the batch.
            positions: in `vectors`, of the histories, the targets and the negatives, concatenated.
        """
        own = slice(self._rank, None, self._processes)
        (B, L), T = batch.histories.shape, batch.targets.shape[1]
        history, target, negative = np.split(positions, [B * L, B * (L + T)])
        histories, targets, negatives = (
            F.embedding(paddle.to_tensor(part), vectors)
            for part in (history.reshape(B, L)[own], target.reshape(B, T)[own], negative)
        )
        lengths = paddle.to_tensor(batch.lengths[own])
        terms = LossTerms.from_rows(batch.targets[own], batch.negatives, self._log_q, users=len(batch.lengths))
        settings = self._config.loss
        if settings.readout == "mean":
            return sampled_softmax(self._net.history_vector(histories, lengths), targets, negatives, terms, settings)
        if not settings.routing_variance:
            return sampled_softmax(self._net(histories, lengths), targets, negatives, terms, settings)
        interests, routed = self._net.by_operators(histories, lengths)
        penalty = settings.routing_variance * len(routed) / len(batch.lengths) * routing_variance(routed)
        return sampled_softmax(interests, targets, negatives, terms, settings) + penalty

    def _sum_over_processes(self, loss: Tensor) -> float:
        """Sum loss and gradients over the processes; return the loss."""
        if self._processes > 1:
            for tensor in (loss, self._table.gradient, *(weight.grad for weight in self._trained.values())):
                paddle.distributed.all_reduce(tensor)
        return float(loss)

    def weights(self) -> dict[str, FloatArray]:
        """Return the current weights of the encoder by name."""
        return self._net.weights()

    def vectors(self) -> FloatArray:
        """Return the current vectors of all items, (N, D) float32."""
        with paddle.no_grad():
            return np.array(item_vectors(self._table.values(), self._config.network)[1:].numpy())

    def state(self) -> State:
        """Return what `restore` needs to resume exactly here; weights that are not trained come from the seed."""
        return _prefixed("table", self._table.state()) | _prefixed("net", self._adam.state())

    def restore(self, state: State) -> None:
        """Restore a `state` of a run with the same configuration and data."""
        self._table.restore(_within("table", state))
        self._adam.restore(_within("net", state))


def _prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}.{name}": value for name, value in state.items()}


def _within(prefix: str, state: State) -> State:
    return {name.partition(".")[2]: value for name, value in state.items() if name.startswith(f"{prefix}.")}
