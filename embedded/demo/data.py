"""The demo's clicks: generated ones, or the user's; split by user into those to train on and those to replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from producers.click_log import ClickLog, read_click_log
from producers.synthetic import Shape, generate
from streams.messages.clicks import user_key

#: Generated clicks: small enough to train on in a minute on two cores, large enough that popularity is no answer.
SHAPE = Shape(users=20_000, items=8_000, clicks=400_000, tastes=40, tastes_per_user=3, drift=0.02)
#: Share of the users who are kept out of training, at most.
REPLAYED_SHARE = 0.2
#: Users with fewer clicks are not replayed: the first click can be no hit, so they say little.
LEAST_CLICKS = 4


@dataclass(frozen=True, slots=True)
class DemoData:
    """Files in the train format, and what is in them; `name` gives the text for an item."""

    source: str
    train: Path
    train_clicks: int
    replay: Path
    replay_clicks: int
    replay_users: int
    story: bytes
    name: Callable[[int], str]


def prepare(source: Path | None, folder: Path, clicks: int, seed: int = 0) -> DemoData:
    """Write the files `train.csv` and `replay.csv` into the folder.

    Args:
        source: click file; None = generate.
        folder: where to.
        clicks: how many to replay, about.
        seed: of the generator and of the choice of users.

    Raises:
        ClickFileError: the file cannot be read.
    """
    if source is None:
        made = generate(SHAPE, seed)
        log = ClickLog(list(range(SHAPE.users)), made.user, made.item, made.order.astype(np.float64), False, 0)
        title = f"{SHAPE.clicks:,} generated clicks of {SHAPE.users:,} users with {SHAPE.tastes_per_user} tastes each"
        tastes = made.item_taste

        def name(item: int) -> str:
            return f"{item}·taste{tastes[item]}" if item < len(tastes) else f"{item}·NEW"
    else:
        log = read_click_log([source])
        title = str(source)
        largest = int(log.item.max(initial=0))

        def name(item: int) -> str:
            return f"{item}" if item <= largest else f"{item}·NEW"

    replayed = _choose_users(log, clicks, np.random.default_rng(seed))
    mask = np.isin(log.user, replayed)
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
        story=user_key(log.user_ids[story]),
        name=name,
    )


def _choose_users(log: ClickLog, clicks: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Random users with about that many clicks in all, at most `REPLAYED_SHARE` of the users."""
    counts = np.bincount(log.user, minlength=len(log.user_ids))
    order = rng.permutation(np.flatnonzero(counts >= LEAST_CLICKS))[: max(1, int(REPLAYED_SHARE * len(counts)))]
    wanted = int(np.searchsorted(np.cumsum(counts[order]), clicks)) + 1
    return np.sort(order[:wanted])


def _write(log: ClickLog, mask: npt.NDArray[np.bool_], path: Path) -> None:
    rows = zip(log.user[mask].tolist(), log.item[mask].tolist(), log.order[mask].tolist(), strict=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{log.user_ids[user]},{item},{order:.17g}\n" for user, item, order in rows)
