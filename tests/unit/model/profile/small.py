"""Generated users whose attributes decide what they click, and a model that separates tastes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from model.artifact import Artifact, save_artifact
from model.serving.encoder import Routing

#: Tastes, with 25 items each: item 1000 + 25 t … belongs to taste t. Half of them are clicked twice as often.
TASTES, ITEMS, DIM, INTERESTS, LENGTH = 10, 25, 16, 2, 5
REGIONS, TOPICS = ("north", "east", "south", "west"), ("art", "music", "sport")
#: Attributes as in a configuration file.
ATTRIBUTES: list[dict[str, Any]] = [
    {"name": "region", "kind": "category"},
    {"name": "age", "kind": "number", "bins": 4},
    {"name": "topics", "kind": "categories"},
]


def tastes_of(profile: dict[str, Any]) -> list[int]:
    """Return the tastes of a user: one by region, one by age, one by each topic."""
    age = [4 if profile["age"] < 40 else 5]
    return [REGIONS.index(profile["region"]), *age, *(6 + TOPICS.index(topic) for topic in profile["topics"])]


def users(number: int, first: int, seed: int) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Return profiles of users with ids from `first` on, and their clicks, 14 for each."""
    rng = np.random.default_rng(seed)
    profiles = [
        {
            "user_id": first + user,
            "region": str(rng.choice(REGIONS)),
            "age": int(rng.integers(18, 63)),
            "topics": sorted(set(rng.choice(TOPICS, 2).tolist())),
        }
        for user in range(number)
    ]
    clicks = [[_click(profile, rng) for _ in range(14)] for profile in profiles]
    return profiles, clicks


def _click(profile: dict[str, Any], rng: np.random.Generator) -> int:
    taste = int(rng.choice(tastes_of(profile)))
    return 1000 + ITEMS * taste + int(rng.integers(ITEMS))


def artifact(folder: Path, seed: int = 0, *, normalise: bool = True) -> Artifact:
    """Write a model whose items of one taste are near each other."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:TASTES]
    vectors = centres.repeat(ITEMS, axis=0) + rng.normal(0, 0.1, (TASTES * ITEMS, DIM))
    if normalise:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    eye = np.eye(DIM, dtype=np.float32)
    weights = {
        "bilinear": eye,
        "output": eye,
        "bias": np.zeros(DIM, np.float32),
        "start": np.zeros((INTERESTS, LENGTH), np.float32),
        "recency": np.zeros(LENGTH, np.float32),
    }
    routing = Routing(3, 1.0, "interests", normalise=normalise, relu=False, residual=0.0, by_history=False, fusion=0.5)
    return save_artifact(
        folder,
        weights=weights,
        interests=INTERESTS,
        history_length=LENGTH,
        encoder=routing.to_dict(),
        item_ids=np.arange(1000, 1000 + TASTES * ITEMS),
        item_vectors=vectors.astype(np.float32),
        item_counts=np.ones(TASTES * ITEMS, np.int64),
        users=1,
        clicks=1,
        config={"loss": {"temperature": 0.1}},
    )


def write_files(folder: Path) -> dict[str, Path]:
    """Write a configuration, profiles, and clicks of training, valid and test users."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.csv" for name in ("train", "valid", "test")}
    everyone = []
    for seed, (path, number) in enumerate(zip(files.values(), (400, 100, 100), strict=True)):
        profiles, clicks = users(number, 1 + 10_000 * seed, seed)
        everyone += profiles
        rows = zip(profiles, clicks, strict=True)
        lines = [f"{one['user_id']},{item},{n}\n" for one, own in rows for n, item in enumerate(own)]
        path.write_text("".join(lines), encoding="utf-8")
    files["profiles"] = folder / "profiles.jsonl"
    files["profiles"].write_text("".join(json.dumps(one) + "\n" for one in everyone), encoding="utf-8")
    files["config"] = folder / "profile.yaml"
    files["config"].write_text(json.dumps({"data": {"attributes": ATTRIBUTES}}), encoding="utf-8")  # JSON is YAML
    return files


def options(files: dict[str, Path], model: Artifact) -> list[str]:
    """Return the arguments that both programs have in common."""
    names = {"-c": "config", "--clicks": "train", "--valid": "valid", "--profiles": "profiles"}
    given = [word for option, name in names.items() for word in (option, str(files[name]))]
    return [*given, "--artifact", str(model.path), "--set", "training.epochs=6", "--set", "loss.penalty=1"]
