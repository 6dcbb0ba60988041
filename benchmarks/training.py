"""Training speed on a table of AmazonBook's size, beside the same model with dense gradients and a dense Adam.

Batches are drawn and trained on as in a run, one after the other; the share of the time that drawing takes is printed.
The dense model has the same network and loss, but Paddle's usual embedding, with a dense gradient and an Adam that
updates the whole table. Steps of both alternate, so that other work on the machine slows both equally.

Published, for a batch of 128 with 1,280 negatives on this table: PaddleRec 359 samples/s on a CPU (its README, 1,000
batches in 356 s); the public PyTorch code of REMI 394 as shipped, 1,430 with a fused Adam (measured on two cores).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.report import Figure
from benchmarks.harness.servers import BenchmarkServers
from benchmarks.quality import ON_THE_MEAN
from configs.loader import FOLDER, load_train
from configs.schema import TrainConfig
from model.arrays import IdVector
from model.data.clicks import Clicks
from model.training.sampling import Sampler, TrainingBatch

#: Steps that are not measured: the first ones allocate memory and compile.
WARM_UP = 3
VARIANTS = {
    "default": (FOLDER / "mind.yaml", ()),
    "trained on the mean": (FOLDER / "mind.yaml", ON_THE_MEAN),
    "published": (FOLDER / "mind-paper.yaml", ()),
}
PUBLISHED = {"PaddleRec": 359.0, "REMI, PyTorch, as shipped": 394.0, "REMI, PyTorch, fused Adam": 1430.0}


def run(servers: BenchmarkServers, sizes: Sizes) -> Sequence[Figure]:
    from model.training.backend import paddle

    clicks = _clicks(sizes)
    counts = np.bincount(clicks.items, minlength=sizes["items"] + 1)[1:]
    figures: list[Figure] = []
    for device in ("cpu", *["gpu"] * (paddle.device.cuda.device_count() > 0)):
        servers.report(f"Training on {sizes['items']:,} items, on the {device}")
        paddle.device.set_device(device)
        for name, (path, changed) in VARIANTS.items():
            for batch in (sizes["batch"], sizes["large_batch"]):
                given = [*changed, f"training.batch_size={batch}", f"loss.negatives={sizes['negatives']}"]
                config = load_train(path, given, {})
                sampler = Sampler(clicks, counts, config)
                dense = batch == sizes["batch"]
                figures += _measure(f"{device}: {name}, batch {batch}", config, sampler, sizes, with_dense=dense)
    return figures + [Figure(f"published: {name}, batch 128", rate, "samples/s") for name, rate in PUBLISHED.items()]


def _measure(name: str, config: TrainConfig, sampler: Sampler, sizes: Sizes, *, with_dense: bool) -> list[Figure]:
    from model.training.learner import Learner

    learner, B = Learner(config, sizes["items"], sampler.log_q), config.training.batch_size
    dense = _dense_step(config, sizes["items"], sampler) if with_dense else None
    drawing, training, slow = [], [], []
    for step in range(1, WARM_UP + sizes["steps"] + 1):
        begin = time.perf_counter()
        batch = sampler.batch(step)
        drawn = time.perf_counter()
        learner.step(batch, 0.001)
        trained = time.perf_counter()
        drawing.append(drawn - begin)
        training.append(trained - begin)
        if dense is not None and step <= WARM_UP + sizes["dense_steps"]:
            dense(batch)
            slow.append(time.perf_counter() - trained + drawn - begin)
    seconds = float(np.mean(training[WARM_UP:]))
    figures = [
        Figure(f"{name}", B / seconds, "samples/s"),
        Figure(f"{name}: share of the time for data", 100 * float(np.mean(drawing[WARM_UP:])) / seconds, "%"),
    ]
    if slow:
        dense_seconds = float(np.mean(slow[WARM_UP:]))
        figures.append(Figure(f"{name}, dense gradients and Adam", B / dense_seconds, "samples/s"))
        figures.append(Figure(f"{name}: times faster than dense", dense_seconds / seconds, "×"))
    return figures


def _dense_step(config: TrainConfig, items: int, sampler: Sampler) -> Callable[[TrainingBatch], None]:
    from model.training.backend import F, paddle
    from model.training.loss import LossTerms, sampled_softmax
    from model.training.net import Mind, initial_table, initial_weights, item_vectors

    rng = np.random.default_rng(0)
    net = Mind(initial_weights(config.network, rng), config.network)
    table = paddle.create_parameter([items + 1, config.network.dim], "float32")
    table.set_value(initial_table(config.network, items, rng))
    trained = [table, *(weight for weight in net.parameters() if not weight.stop_gradient)]
    adam = paddle.optimizer.Adam(0.001, parameters=trained)

    def step(batch: TrainingBatch) -> None:
        histories, targets, negatives = (
            item_vectors(F.embedding(paddle.to_tensor(rows), table), config.network)
            for rows in (batch.histories, batch.targets, batch.negatives)
        )
        terms = LossTerms.from_rows(batch.targets, batch.negatives, sampler.log_q, users=len(batch.lengths))
        lengths = paddle.to_tensor(batch.lengths)
        interests = net.history_vector(histories, lengths) if config.loss.readout == "mean" else net(histories, lengths)
        loss = sampled_softmax(interests, targets, negatives, terms, config.loss)
        loss.backward()
        adam.step()
        adam.clear_grad()
        table[0].numpy()  # waits for a GPU

    return step


def _clicks(sizes: Sizes) -> Clicks:
    """Return users with 5 to 24 clicks each, on items whose popularity is proportional to 1 / rank."""
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(5, 25, sizes["users"]))]).astype(np.int64)
    cumulated = np.cumsum(1 / np.arange(1, sizes["items"] + 1))
    items: IdVector = 1 + np.searchsorted(cumulated, rng.random(offsets[-1]) * cumulated[-1])
    return Clicks(np.arange(sizes["users"]), offsets, items)


_SIZES = {
    "items": 367_982,
    "users": 100_000,
    "batch": 128,
    "large_batch": 512,
    "negatives": 1280,
    "steps": 100,
    "dense_steps": 10,
}
BENCHMARK = Benchmark(run, {"standalone": _SIZES, "lite": _SIZES}, kafka=False, milvus=False)
