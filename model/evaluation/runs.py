"""Read the folder of a training run.

RUN/config.yaml            the training configuration
RUN/metrics.jsonl          one JSON object on each line, with `epoch` and `seconds` since the start among its keys
RUN/epochs/0005/           the artifact after epoch 5, for each epoch that was kept
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from model.evaluation.measure import EvaluationError


def parse_numbers(text: str) -> list[int]:
    """Parse `5-20`, `5,10`, `1,5-8` into ascending integers, 1 or larger.

    Raises:
        ValueError: the text has another format.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last:
            raise ValueError(f"expected whole numbers from 1 such as 20,50 or 5-20, found {text!r}")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def kept_epochs(run: Path, wanted: Sequence[int] | None) -> list[tuple[int | None, Path]]:
    """Return the wanted epochs, or all kept ones, each with its artifact folder.

    Raises:
        EvaluationError: the run kept no epochs, or not all wanted ones.
    """
    folder = run / "epochs"
    kept = {int(path.name): path for path in folder.glob("*") if path.is_dir() and re.fullmatch("[0-9]+", path.name)}
    if not kept:
        raise EvaluationError(f"{folder}: no epochs here; give the folder of a training run, or --artifact DIR")
    missing = [epoch for epoch in wanted or () if epoch not in kept]
    if missing:
        raise EvaluationError(f"{folder}: no epoch {_ranges(missing)}; kept are {_ranges(sorted(kept))} (--epochs)")
    return [(epoch, kept[epoch]) for epoch in sorted(wanted or kept)]


def seconds_by_epoch(run: Path) -> dict[int, float]:
    """Return the seconds since the start of training at the last line of each epoch; empty without the file.

    A last line without its newline is still being written, and is ignored.

    Raises:
        EvaluationError: a line is not a JSON object with `epoch` and `seconds`.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        return {}
    seconds: dict[int, float] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            entry = json.loads(line)
            seconds[int(entry["epoch"])] = float(entry["seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationError(f"{path}, line {number}: expected epoch and seconds ({error!r})") from None
    return seconds


def _ranges(numbers: Sequence[int]) -> str:
    """Format 1, 3, 4, 5 as `1, 3–5`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
