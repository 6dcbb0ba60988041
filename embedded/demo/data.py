"""The demo's clicks, generated or from a file: split by user into those to train on and those to replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedded.demo.titles import generated_names
from model.arrays import IntVector, Mask
from model.data.files import DataError
from model.data.malformed import MalformedLines
from model.data.reader import Order
from model.explanation.names import ItemName
from producers.click_log import ClickLog, read_click_log
from producers.synthetic import Shape, generate
from streams.messages.clicks import user_key

#: Generated clicks: few enough to train on in a minute on two cores, enough that popular items are poor answers.
SHAPE = Shape(users=20_000, items=8_000, clicks=400_000, tastes=40, tastes_per_user=3, drift=0.02)
#: Largest share of the users that is held out of training.
REPLAYED_SHARE = 0.2
#: Users with fewer clicks are not replayed: a first click cannot be a hit, so their hit rate means little.
MIN_CLICKS = 4
#: Users with fewer clicks are no examples for training: one click is the history, the other the target.
MIN_TRAINING_CLICKS = 2


@dataclass(frozen=True, slots=True)
class DemoData:
    """Click files in the train format.

    Attributes:
        source: description of the clicks.
        train, replay: the files. order: what their third column is, "rank" or "time".
        train_clicks, replay_clicks, replay_users: their sizes.
        story_user: key of the user whose recommendations are shown.
        item_text: item id → text.
        names: titles and categories of generated items; empty for a file.
    """

    source: str
    train: Path
    train_clicks: int
    replay: Path
    replay_clicks: int
    replay_users: int
    order: Order
    story_user: bytes
    item_text: Callable[[int], str]
    names: Mapping[int, ItemName]


def prepare_clicks(
    source: Path | None,
    folder: Path,
    clicks: int,
    malformed: MalformedLines | None = None,
    order: Order = "auto",
    seed: int = 0,
) -> DemoData:
    """Write the files `train.csv` and `replay.csv` into the folder.

    Args:
        source: click file; None = generate.
        folder: for the files.
        clicks: about how many to replay.
        malformed, order: as for `read_click_log`.
        seed: of the generator and of the choice of users.

    Raises:
        DataError: the file cannot be read, or has too few clicks to train on some and replay others.
    """
    log, title, item_text, names = _generated(seed) if source is None else _read(source, malformed, order)
    replayed = _choose_users(log, clicks, np.random.default_rng(seed))
    mask = np.isin(log.user, replayed)
    if not len(replayed) or np.bincount(log.user[~mask], minlength=1).max() < MIN_TRAINING_CLICKS:
        raise DataError(
            f"{title}: too few clicks; the demo needs a user with {MIN_CLICKS} clicks to replay, and another one with "
            f"{MIN_TRAINING_CLICKS} to train on"
        )
    train, replay = folder / "train.csv", folder / "replay.csv"
    _write(log, ~mask, train)
    _write(log, mask, replay)
    story = replayed[np.argmax(np.bincount(log.user[mask], minlength=len(log.user_ids))[replayed])]
    return DemoData(
        source=title,
        train=train,
        train_clicks=int((~mask).sum()),
        replay=replay,
        replay_clicks=int(mask.sum()),
        replay_users=len(replayed),
        order="time" if log.timed else "rank",
        story_user=user_key(log.user_ids[story]),
        item_text=item_text,
        names=names,
    )


#: Clicks, their title, the text of an item, and the names of items.
_Source = tuple[ClickLog, str, Callable[[int], str], Mapping[int, ItemName]]


def _generated(seed: int) -> _Source:
    generated = generate(SHAPE, seed)
    tastes = generated.item_taste

    def item_text(item: int) -> str:
        return f"{item}·taste{tastes[item]}" if item < len(tastes) else f"{item}·NEW"

    log = ClickLog(list(range(SHAPE.users)), generated.user, generated.item, generated.order, False)
    title = f"{SHAPE.clicks:,} generated clicks of {SHAPE.users:,} users with {SHAPE.tastes_per_user} tastes each"
    return log, title, item_text, generated_names(tastes)


def _read(path: Path, malformed: MalformedLines | None, order: Order) -> _Source:
    log = read_click_log([path], malformed, order)
    largest = int(log.item.max(initial=0))
    return log, str(path), lambda item: f"{item}" if item <= largest else f"{item}·NEW", {}


def _choose_users(log: ClickLog, clicks: int, rng: np.random.Generator) -> IntVector:
    """Return (n,) random users with about `clicks` clicks in total, at most `REPLAYED_SHARE` of all users."""
    counts = np.bincount(log.user, minlength=len(log.user_ids))
    order = rng.permutation(np.flatnonzero(counts >= MIN_CLICKS))[: max(1, int(REPLAYED_SHARE * len(counts)))]
    wanted = int(np.searchsorted(np.cumsum(counts[order]), clicks)) + 1
    return np.sort(order[:wanted])


def _write(log: ClickLog, mask: Mask, path: Path) -> None:
    rows = zip(log.user[mask].tolist(), log.item[mask].tolist(), log.order[mask].tolist(), strict=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{log.user_ids[user]},{item},{order}\n" for user, item, order in rows)
