"""Trains MIND on click files and writes an artifact: python -m model.train -c configs/train.yaml --data FILE…"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

if not __package__:  # started as `python model/train.py`: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import click
import numpy as np
from rich.console import Console

from configs.loader import ConfigError, load_train
from configs.schema import TrainConfig, TrainingData
from model.artifact import Artifact, ArtifactError, check_target, save_artifact
from model.clickfile import DataError
from model.data import Clicks, Holdout, hold_out, is_valid_format, read_clicks, read_holdout, split_users
from model.encoder import Encoder
from model.evaluate import evaluate
from model.net import Mind, corrections, initial_weights, paddle, routing_of, sampled_softmax
from model.progress import TrainingProgress
from model.sampling import ExampleSampler, NegativeSampler

#: Recommendations that the quality at the end is measured on; the published figures have the same number.
MEASURED_AT = 50


@click.command(epilog="Example: python -m model.train -c configs/train.yaml --data clicks.txt --out artifacts/latest")
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="YAML file with the keys to change.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One key, e.g. training.steps=500.")
@click.option("--data", multiple=True, metavar="PATH", help="Click file (uid,item_id,order); may be repeated.")
@click.option("--out", metavar="DIR", help="Folder of the artifact.")
def main(path: Path | None, overrides: tuple[str, ...], data: tuple[str, ...], out: str | None) -> None:
    """Train MIND on click files and write an artifact: weights, item vectors, manifest."""
    given = [f"data.paths={json.dumps(data)}"] if data else []
    given += [f"output.folder={json.dumps(out)}"] if out else []
    paddle.disable_signal_handler()  # Ctrl-C is ours …
    signal.signal(signal.SIGINT, signal.default_int_handler)  # … also where a shell has started us with it ignored
    try:
        train(load_train(path, (*overrides, *given)), Console(highlight=False))
    except (ConfigError, DataError, ArtifactError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        click.echo("Stopped; no artifact was written.", err=True)
        sys.exit(130)  # what a shell reports for Ctrl-C


def train(config: TrainConfig, console: Console) -> Artifact:
    """One run: data, network, loop, measurement, artifact.

    Raises:
        DataError, ArtifactError: the data cannot be used, or the output folder not be written; both say what to do.
    """
    begin = time.monotonic()
    check_target(config.output.folder)  # before the minutes of training, not after
    settings, loss_settings = config.training, config.loss
    rng = np.random.default_rng(settings.seed)

    # Data: items get rows 1 … N of the table, in the order of their ids; row 0 is padding.
    clicks, held = load(config.data, rng)
    item_ids, rows, counts = np.unique(clicks.items, return_inverse=True, return_counts=True)
    clicks = Clicks(clicks.users, clicks.offsets, rows.reshape(-1) + 1, clicks.malformed)
    skipped = f", {clicks.malformed:,} malformed lines skipped" if clicks.malformed else ""
    console.print(f"{len(rows):,} clicks of {len(clicks):,} users on {len(item_ids):,} items{skipped}", soft_wrap=True)
    try:
        examples = ExampleSampler(clicks, config.network.history_length, settings.shortest_history, settings.user_power)
    except ValueError as error:
        raise DataError(f"{error}: give more data, or lower training.shortest_history") from None
    negatives = NegativeSampler(counts, loss_settings.distribution)

    # Network: lazy Adam touches the rows of a step alone; dense gradients take 15 times as long on large catalogues.
    net = Mind(initial_weights(config.network, len(item_ids), rng), config.network)
    trained = [parameter for parameter in net.parameters() if not parameter.stop_gradient]
    adam = paddle.optimizer.Adam(settings.learning_rate, parameters=trained, lazy_mode=True)

    B, L, M = settings.batch_size, config.network.history_length, loss_settings.negatives
    done, loop_begin = 0.0, time.monotonic()
    with TrainingProgress(console) as progress:
        for step in range(1, settings.steps + 1):
            if settings.decay == "linear":
                adam.set_lr(settings.learning_rate * (1 - done))
            batch = examples.draw(B, rng)
            wrong = negatives.draw(M, rng)
            added = corrections(batch.targets, wrong, negatives.log_q)  # (B, 1 + M)

            # One look-up for everything: its sparse gradient is merged once.
            used = np.concatenate([batch.histories.ravel(), batch.targets, wrong])  # (B·L + B + M,)
            vectors = net.vectors(paddle.to_tensor(used))  # (B·L + B + M, D)
            history, targets, others = paddle.split(vectors, [B * L, B, M])
            interests = net(history.reshape([B, L, -1]), paddle.to_tensor(batch.lengths))  # (B, K, D)
            loss = sampled_softmax(interests, targets, others, paddle.to_tensor(added), loss_settings)
            loss.backward()
            adam.step()
            adam.clear_grad()

            clock = (time.monotonic() - loop_begin) / settings.max_seconds if settings.max_seconds else 0.0
            done = min(1.0, max(step / settings.steps, clock))
            progress.step(done, float(loss), step * B)
            if done == 1:
                break

    # From here on NumPy alone: what is measured and saved is what will be served.
    weights = net.weights()
    with paddle.no_grad():
        item_vectors = net.vectors(paddle.arange(1, len(item_ids) + 1)).numpy()  # (N, D)
    del weights["table"]
    metrics: dict[str, float] = {}
    if len(held.history):
        encoder = Encoder(weights, routing_of(config.network))
        metrics = evaluate(encoder, item_ids, item_vectors, held, MEASURED_AT)
        figures = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        console.print(f"{len(held.history):,} held-out users: {figures}", soft_wrap=True)
    artifact = save_artifact(
        config.output.folder,
        weights=weights,
        interests=config.network.interests,
        history_length=L,
        encoder=routing_of(config.network).to_dict(),
        item_ids=item_ids,
        item_vectors=item_vectors,
        item_counts=counts.astype(np.int64),
        users=len(clicks),
        clicks=len(rows),
        config=config.model_dump(mode="json"),
        metrics=metrics,
    )
    seconds = time.monotonic() - begin
    summary = f"model {artifact.model_version}: {len(item_ids):,} items, {seconds:.0f} s, in {artifact.path}"
    console.print(summary, soft_wrap=True)
    return artifact


def load(data: TrainingData, rng: np.random.Generator) -> tuple[Clicks, Holdout]:
    """Clicks to train on, and the users to measure on (none, when no measurement is asked for)."""
    clicks = read_clicks(data.paths, malformed=data.malformed)
    if not data.valid_paths:
        clicks, held = split_users(clicks, data.valid_fraction, rng)
        return clicks, hold_out(held)
    if all(map(is_valid_format, data.valid_paths)):
        return clicks, read_holdout(data.valid_paths, malformed=data.malformed)
    return clicks, hold_out(read_clicks(data.valid_paths, malformed=data.malformed))


if __name__ == "__main__":
    main()
