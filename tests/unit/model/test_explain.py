"""The explanation of one user, compared with values computed by hand; its text, JSON document and picture."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from model.artifact import Artifact, save_artifact
from model.explain import main
from model.explanation.explain import Explanation, ExplanationError, ReadClick, Recalled, explain
from model.explanation.names import ItemName
from model.explanation.picture import HEIGHT, WIDTH, draw
from model.serving.encoder import Routing

#: Weight of each click in each interest, newest click first. The initial routing logits are their logarithms, and do
#: not change with one iteration: interest k is Σ weight · vector / length.
WEIGHTS = np.array([[0.9, 0.2, 0.5], [0.1, 0.8, 0.5]])
#: Item → axis and length of its vector: 40 is like 30, and 50 like 20, but shorter; no item is like 60.
VECTORS = {10: (2, 1.0), 20: (1, 1.0), 30: (0, 1.0), 40: (0, 0.9), 50: (1, 0.9), 60: (3, 1.0)}
#: Lengths of the two interests after clicks on 10, 20 and 30.
LENGTHS = np.sqrt([0.9**2 + 0.2**2 + 0.5**2, 0.1**2 + 0.8**2 + 0.5**2])
ROUTING = Routing(1, 1.0, "interests", normalise=True, relu=False, residual=0.0, by_history=False)


def artifact(folder: Path, routing: Routing = ROUTING) -> Artifact:
    vectors = np.zeros((len(VECTORS), 4))
    for row, (axis, length) in enumerate(VECTORS.values()):
        vectors[row, axis] = length
    weights = {"bilinear": np.eye(4), "output": np.eye(4), "bias": np.zeros(4)}
    weights |= {"start": np.log(WEIGHTS), "recency": np.zeros(3)}
    return save_artifact(
        folder,
        weights={name: value.astype(np.float32) for name, value in weights.items()},
        interests=2,
        history_length=3,
        encoder=routing.to_dict(),
        item_ids=np.array(list(VECTORS)),
        item_vectors=vectors.astype(np.float32),
        item_counts=np.ones(6, np.int64),
        users=1,
        clicks=6,
        config={},
    )


def explained(folder: Path, *, n: int = 3, unseen: bool = False, **routing: Any) -> Explanation:
    """Explain a user who clicked 60, 10, an unknown item, 20 and 30, and then 40 and another unknown item."""
    history, targets = np.array([60, 10, 99, 20, 30]), np.array([40, 77])
    return explain(artifact(folder, replace(ROUTING, **routing)), "anna", history, targets, n, unseen=unseen)


def scored(recalled: Sequence[Recalled]) -> list[tuple[int, Any]]:
    return [(one.item, pytest.approx(one.score, abs=1e-6)) for one in recalled]


@pytest.mark.parametrize(
    "routing", [{}, {"normalise": False}, {"normalise": False, "axis": "clicks"}, {"axis": "clicks"}]
)
def test_each_click_has_its_share_of_each_interest(tmp_path: Path, routing: dict[str, Any]) -> None:
    explanation = explained(tmp_path / "a", **routing)
    assert [click.item for click in explanation.clicks] == [30, 20, 10]  # newest first; 60 is too old to be read
    shares = np.transpose([click.shares for click in explanation.clicks])  # (K, 3)
    assert shares == pytest.approx(WEIGHTS / WEIGHTS.sum(axis=1, keepdims=True), abs=1e-6)
    assert [click.feeds for click in explanation.clicks] == [0, 1, 1]
    assert [explanation.fed_by(interest) for interest in (0, 1)] == [1, 2]
    assert (explanation.history, explanation.unknown, explanation.targets) == (5, [99], [40, 77])


def test_lists_and_marks_equal_those_computed_by_hand(tmp_path: Path) -> None:
    explanation = explained(tmp_path / "a")
    first, second = LENGTHS
    assert scored(explanation.recalled[0]) == [(30, 0.9 / first), (40, 0.81 / first), (10, 0.5 / first)]
    assert scored(explanation.recalled[1]) == [(20, 0.8 / second), (50, 0.72 / second), (10, 0.5 / second)]
    assert scored(explanation.merged) == [(30, 0.9 / first), (20, 0.8 / second), (40, 0.81 / first)]
    assert [one.interest for one in explanation.merged] == [0, 1, 0]
    assert [(one.seen, one.hit) for one in explanation.merged] == [(True, False), (True, False), (False, True)]
    assert [explanation.recalled_by(item) for item in (40, 10, 77)] == [[0], [0, 1], []]
    cosine = (0.9 * 0.1 + 0.2 * 0.8 + 0.5 * 0.5) / (first * second)
    assert np.array(explanation.cosines) == pytest.approx(np.array([[1, cosine], [cosine, 1]]), abs=1e-6)


def test_the_merged_list_shows_the_score_that_orders_it(tmp_path: Path) -> None:
    explanation = explained(tmp_path / "a", fusion=0.5)
    best = {k: {one.item: one.score for one in recalled} for k, recalled in enumerate(explanation.recalled)}
    last = [min(scores.values()) for scores in best.values()]
    for one in explanation.merged:
        each = [best[k].get(one.item, last[k]) for k in best]
        assert one.score == pytest.approx(0.5 * max(each) + 0.5 * sum(each) / len(each), abs=1e-6)
    scores = [one.score for one in explanation.merged]
    assert scores == sorted(scores, reverse=True)


def test_items_of_the_history_can_be_left_out(tmp_path: Path) -> None:
    explanation = explained(tmp_path / "a", unseen=True)
    first, second = LENGTHS
    assert scored(explanation.recalled[0]) == [(40, 0.81 / first), (50, 0.18 / first)]  # 60 was also clicked
    assert scored(explanation.recalled[1]) == [(50, 0.72 / second), (40, 0.09 / second)]
    assert [(one.item, one.interest) for one in explanation.merged] == [(40, 0), (50, 1)]


def test_interests_that_a_user_with_few_clicks_does_not_have_are_left_out(tmp_path: Path) -> None:
    explanation = explained(tmp_path / "a", by_history=True)  # ⌊log2 3⌋ = 1
    assert len(explanation.recalled) == len(explanation.cosines) == 1
    assert all(len(click.shares) == 1 and click.feeds == 0 for click in explanation.clicks)
    assert sum(click.shares[0] for click in explanation.clicks) == pytest.approx(1)


def test_a_user_of_unknown_items_cannot_be_explained(tmp_path: Path) -> None:
    with pytest.raises(ExplanationError, match=r"user 7: the model knows no item of the 2 clicks.*--user"):
        explain(artifact(tmp_path / "a"), "7", np.array([98, 99]), np.empty(0, np.int64), 3)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return artifact(tmp_path / "model").path


@pytest.fixture
def train_format(tmp_path: Path) -> Path:
    path = tmp_path / "clicks.csv"
    path.write_text("bob,40,6\nbob,10,1\nbob,20,2\nbob,30,3\nbobby,10,1\n7,98,1\n")
    return path


@pytest.fixture
def valid_format(tmp_path: Path) -> Path:
    path = tmp_path / "test.txt"
    path.write_text(
        "user_id:bob target_item:0 hist_item:50 eval_item:60\n"
        "user_id:anna target_item:0 hist_item:10 hist_item:20 hist_item:30 eval_item:40 eval_item:77\n"
    )
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def document(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_click_files_of_both_formats_are_explained(model: Path, train_format: Path, valid_format: Path) -> None:
    of_anna = document("--user", "anna", "--artifact", model, "--clicks", valid_format)
    assert [click["item"] for click in of_anna["clicks"]] == [30, 20, 10] and of_anna["targets"] == [40, 77]
    held = document("--user", "bob", "--artifact", model, "--clicks", train_format, "--hold-out")
    assert held["targets"] == [40]  # the last 20 % in the order of the third column
    assert held["clicks"] == of_anna["clicks"] and held["recalled"] == of_anna["recalled"]
    everything = document("--user", "bob", "--artifact", model, "--clicks", train_format)
    assert [click["item"] for click in everything["clicks"]] == [40, 30, 20] and everything["targets"] == []
    assert not any(one["hit"] for one in everything["merged"])


def test_the_configuration_names_artifact_and_click_files(
    tmp_path: Path, model: Path, train_format: Path, valid_format: Path
) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(f"output: {{folder: {model}}}\ndata: {{paths: [{train_format}]}}\n")
    assert document("-c", config, "--user", "bob")["history"] == 4
    assert document("-c", config, "--set", f"data.valid_paths=[{valid_format}]", "--user", "bob")["history"] == 1


def test_the_text_has_the_content_of_the_document(tmp_path: Path, model: Path, valid_format: Path) -> None:
    names = tmp_path / "names.csv"
    names.write_text("10,Ten [bold],Tens\n40,Forty\n20,Twenty\n")
    given = ("--user", "anna", "--artifact", model, "--clicks", valid_format, "--top-n", 3, "--names", names)
    found, text = document(*given), run(*given).stdout
    assert found["names"] == {
        "10": {"name": "Ten [bold]", "category": "Tens"},
        "20": {"name": "Twenty", "category": ""},
        "40": {"name": "Forty", "category": ""},
    }
    clicks, *lists = re.split(r"\n■ interest \d|\nmerged|\nclicked next", text)
    assert re.findall(r"^ *(\d+) .*? (\d) +(\d+)% \S+ +(\d+)% \S+ *$", clicks, re.MULTILINE) == [
        (str(click["item"]), str(click["feeds"]), *(f"{share:.0%}".rstrip("%") for share in click["shares"]))
        for click in found["clicks"]
    ]
    *recalled, merged, targets = lists
    for part, shown in zip([*found["recalled"], found["merged"]], [*recalled, merged], strict=True):
        rows = re.findall(r"^ *(\d+) .*?(\d\.\d{3}) *(\d)? *(seen|clicked next)? *$", shown, re.MULTILINE)
        assert [(item, score, mark) for item, score, _, mark in rows] == [
            (str(one["item"]), f"{one['score']:.3f}", "seen" if one["seen"] else "clicked next" if one["hit"] else "")
            for one in part
        ]
        if shown is merged:
            assert [int(interest) for _, _, interest, _ in rows] == [one["interest"] for one in part]
    assert re.search(r"^ *40 +Forty +0 *$", targets, re.MULTILINE)
    assert f"interest cosines: 0–1 {found['cosines'][0][1]:.2f}" in targets
    assert "Ten [bold] · Tens" in clicks and "reads the 3 of 3 clicks" in clicks


def test_errors_name_the_remedy(tmp_path: Path, model: Path, train_format: Path, valid_format: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    bob = ["--user", "bob", "--artifact", model]
    for arguments, expected in (
        (bob, "give --clicks FILE"),
        ([*bob, "--clicks", tmp_path / "none"], "cannot be read"),
        ([*bob, "--clicks", train_format, "--clicks", valid_format], "both formats"),
        ([*bob, "--clicks", tmp_path / "empty.csv"], "no users in the files"),
        ([*bob, "--clicks", valid_format, "--hold-out"], "--hold-out is for the train format"),
        ([*bob, "--clicks", train_format, "--names", tmp_path / "none"], "cannot be read"),
        ([*bob, "--clicks", train_format, "--plot", tmp_path / "a.none"], "its name ends in .png"),
        ([*bob, "--clicks", train_format, "--top-n", 0], "1<=x<=1000"),
        (["--user", "bob", "--artifact", tmp_path / "none", "--clicks", train_format], "no artifact here"),
        (["--user", "bobb", "--artifact", model, "--clicks", train_format], "did you mean bobby, bob?"),
        (["--user", "zzz", "--artifact", model, "--clicks", train_format], "there are 3: 7, bob, bobby"),
        (["--user", "7", "--artifact", model, "--clicks", train_format], "knows no item of the 1 click,"),
        (["--user", "7", "--artifact", model, "--clicks", train_format, "--hold-out"], "has one click"),
    ):
        result = run(*arguments)
        assert result.exit_code in (1, 2), arguments
        assert expected in result.stderr, (arguments, result.stderr)


def test_the_picture_is_1200_by_800_pixels(tmp_path: Path, model: Path, valid_format: Path) -> None:
    plot = tmp_path / "plots" / "anna.png"
    result = run("--user", "anna", "--artifact", model, "--clicks", valid_format, "--plot", plot)
    assert result.exit_code == 0, result.output
    content = plot.read_bytes()
    assert content.startswith(b"\x89PNG") and struct.unpack(">II", content[16:24]) == (WIDTH, HEIGHT) == (1200, 800)


def made_up(K: int, clicks: int, n: int, targets: int) -> Explanation:
    """Return an explanation with lists of the given lengths, of items 1, 2, …"""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(clicks), K).T
    recalled = [
        [Recalled(item, -10 / item, k, item % 2 == 0, item % 3 == 0) for item in range(1, n + 1)] for k in range(K)
    ]
    return Explanation(
        user="u" * 256,
        model_version="m123456789abc",
        history=10_000,
        unknown=[7] * 100,
        clicks=[ReadClick(item, row.tolist(), int(row.argmax())) for item, row in enumerate(shares, 1)],
        targets=list(range(1, targets + 1)),
        recalled=recalled,
        merged=recalled[-1],
        cosines=(-np.ones((K, K))).tolist(),
    )


@pytest.mark.parametrize(
    ("K", "clicks", "n", "targets", "height"),
    [(1, 1, 1, 0, 800), (4, 20, 10, 3, 800), (4, 20, 10, 400, 800), (3, 50, 10, 12, 1330), (20, 20, 5, 5, 1530)],
)
def test_no_text_of_the_picture_overlaps_another(K: int, clicks: int, n: int, targets: int, height: int) -> None:
    names = {item: ItemName("$x^$ " + "WIDE " * 20, "wide") for item in range(1, 51)}
    figure = draw(made_up(K, clicks, n, targets), names)
    assert figure.bbox.size == pytest.approx([WIDTH, height])
    shown = [text for text in figure.axes[0].texts if text.get_text()]
    assert len(shown) > 2 * clicks + n
    extents = np.array([text.get_window_extent().extents for text in shown])  # (T, 4): left, bottom, right, top
    assert extents.min() >= 0 and (extents[:, 2] <= WIDTH).all() and (extents[:, 3] <= height).all()
    low, high = extents[:, None, :2], extents[None, :, 2:] - 1  # (T, 1, 2), (1, T, 2); a pixel of rounding
    apart = (low >= high).any(axis=2)
    meet = np.argwhere(~(apart | apart.T | np.eye(len(shown), dtype=bool)))
    assert not len(meet), [(shown[a].get_text(), shown[b].get_text()) for a, b in meet]
