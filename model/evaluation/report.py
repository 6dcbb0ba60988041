"""Output of `python -m model.evaluate`: tables, or a JSON document."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from configs.text import count
from model.data.malformed import MalformedLines
from model.evaluation.clusters import CLUSTERS
from model.evaluation.measure import SEEN, Estimate, ListMeasurement, Measurement
from model.evaluation.metrics import CONFIDENCE, RESAMPLES

#: Figure → title of its line.
_TITLES = {
    "recall": "recall",
    "ndcg": "NDCG",
    "ndcg_over_hits": "NDCG over hits",
    "hit_rate": "hit rate",
    "diversity": "diversity",
    "clusters": f"clusters of {CLUSTERS}",
    "agreement": "agreement",
}


def document(
    measured: Sequence[Measurement], files: Sequence[Path], malformed: MalformedLines, top_n: Sequence[int], seed: int
) -> dict[str, Any]:
    """Return all figures as JSON values, as fractions; `model.evaluation.measure` describes them."""
    return {
        "tests": [str(path) for path in files],
        "skipped": malformed.figures(),
        "top_n": list(top_n),
        "clusters": CLUSTERS,
        "bootstrap": {"resamples": RESAMPLES, "confidence": CONFIDENCE, "seed": seed},
        "models": [dataclasses.asdict(one) for one in measured],
    }


def tables(measured: Sequence[Measurement], top_n: Sequence[int]) -> list[Table | str]:
    """Return a table with a line for each epoch, if there are several, and tables of all figures of the best model."""
    n = max(top_n)
    best = max(measured, key=lambda one: _lists(one, "exact", "kept", n).figures["recall"].mean or 0.0)
    parts: list[Table | str] = [] if len(measured) == 1 else [_epochs_table(measured, n)]
    parts += [_figures_table(best, name) for name in best.recall_at]
    interval = f"{CONFIDENCE:.0%} interval from {RESAMPLES:,} bootstrap resamples of users"
    parts.append(f"percent, except clusters; unseen = without items of the history; ± half the {interval}")
    parts.append(f"mean cosine of a user's interests {_cell('cosine', best.cosine)}")
    if best.without_history:
        parts.append(
            f"{best.without_history:,} of {count(best.users, 'user')} without a click on an item that the model knows, "
            "so without a list"
        )
    return parts


def _epochs_table(measured: Sequence[Measurement], n: int) -> Table:
    table = Table(title=f"{len(measured)} epochs, exact search")
    titles = ["epoch", "seconds", f"recall@{n}", "unseen", f"NDCG@{n}", f"hit rate@{n}", "cosine"]
    for title in titles:
        table.add_column(title, justify="right")
    for one in measured:
        kept, filtered = (_lists(one, "exact", seen, n).figures for seen in SEEN)
        cells = [_cell(name, kept[name]) for name in ("ndcg", "hit_rate")]
        recalls = [_cell("recall", figures["recall"]) for figures in (kept, filtered)]
        seconds = "" if one.seconds is None else f"{one.seconds:,.0f}"
        table.add_row(str(one.epoch), seconds, *recalls, *cells, _cell("cosine", one.cosine))
    return table


def _figures_table(one: Measurement, search: str) -> Table:
    epoch = "" if one.epoch is None else f"epoch {one.epoch}, "
    sizes = f"{count(one.users, 'user')}, {count(one.items, 'item')}"
    how = "exact search" if search == "exact" else "through Milvus"
    table = Table(title=f"{epoch}model {one.model_version}: {sizes}, {how}")
    columns = [lists for lists in one.lists if lists.search == search]
    table.add_column("")
    for lists in columns:
        table.add_column(f"@{lists.n}" if lists.seen == "kept" else f"@{lists.n} unseen", justify="right")
    for name in columns[0].figures:
        table.add_row(_TITLES[name], *(_cell(name, lists.figures[name]) for lists in columns))
    table.add_row("coverage", *(f"{lists.coverage:.2%}".rstrip("%") for lists in columns))
    table.add_row("by interest", *(_shares(lists.interest_shares) for lists in columns))
    table.add_row("… strongest 1st", *(_shares(lists.strongest_shares) for lists in columns))
    return table


def _lists(one: Measurement, search: str, seen: str, n: int) -> ListMeasurement:
    return next(lists for lists in one.lists if (lists.search, lists.seen, lists.n) == (search, seen, n))


def _cell(name: str, estimate: Estimate) -> str:
    if estimate.mean is None:
        return "–"
    mean, half = estimate.mean, None
    if estimate.low is not None and estimate.high is not None:
        half = (estimate.high - estimate.low) / 2
    scale = 1 if name in ("clusters", "cosine") else 100
    return f"{mean * scale:.2f}" + ("" if half is None else f" ±{half * scale:.2f}")


def _shares(shares: Sequence[float]) -> str:
    return " ".join(f"{share:.0%}".rstrip("%") for share in shares)
