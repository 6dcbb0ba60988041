"""How figures are reported, and what they are computed from: traffic, topics."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import threading
import time
from pathlib import Path

import click
import numpy as np
import pytest

from benchmarks.freshness import publish_all
from benchmarks.harness.answers import Events, Phase
from benchmarks.harness.data import Shop, random_artifact
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.isolated import alone
from benchmarks.harness.plot import check, draw
from benchmarks.harness.process import Worker
from benchmarks.harness.report import Curve, Figure, Result, Run, commit, cpu_model, percentiles, to_json
from benchmarks.scaling import Point, slope
from configs.loader import load_train
from embedded.new_items import NewItems
from model.arrays import FloatVector
from model.serving.encoder import Routing

RUN = Run(
    cpu="A processor",
    cores=2,
    memory=24 * 2**30,
    system="Linux x86_64",
    python="3.11.7",
    commit="0123456789ab dirty",
    command="python -m benchmarks encoder",
    began="2030-01-01T00:00:00+00:00",
)
RESULT = Result("encoder", "Kafka", {"users": 64, "rounds": 2000}, [Figure("encoding", 612.4, "µs")], 0.51, 1.25)


def test_the_text_names_machine_commit_and_command() -> None:
    text = RUN.to_text()
    for part in ("A processor", "2 cores", "24.0 GiB", "0123456789ab dirty", "python -m benchmarks encoder"):
        assert part in text


def test_a_result_names_servers_sizes_and_load() -> None:
    head, line = RESULT.to_text().splitlines()
    assert head == "encoder on Kafka (users 64, rounds 2,000; load average 0.5 → 1.2)"
    assert line.split() == ["encoding", "612", "µs"]


def test_json_holds_everything() -> None:
    found = json.loads(to_json(RUN, [RESULT]))
    assert found["commit"] == RUN.commit
    assert found["memory"] == RUN.memory
    assert found["results"][0]["sizes"] == {"users": 64, "rounds": 2000}
    assert found["results"][0]["figures"] == [{"name": "encoding", "value": 612.4, "unit": "µs"}]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (3, "3"), (3.14159, "3.14"), (99.44, "99.4"), (12345.6, "12,346"), (0.0123, "0.0123")]
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert Figure("x", value, "ms").to_text().split() == ["x", text, "ms"]


def test_percentiles_are_in_milliseconds() -> None:
    figures = percentiles("wait", [i / 1000 for i in range(101)], (50, 99, 100))
    assert [f.name for f in figures] == ["wait, p50", "wait, p99", "wait, max"]
    assert [f.value for f in figures] == pytest.approx([50, 99, 100])
    assert {f.unit for f in figures} == {"ms"}
    with pytest.raises(ValueError, match="no values"):
        percentiles("wait", [], (50,))


def test_the_commit_says_whether_the_checkout_has_changes(tmp_path: Path) -> None:
    assert commit(tmp_path / "nowhere") == "unknown"

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    clean = commit(tmp_path)
    assert len(clean) == 12
    (tmp_path / "file").write_text("2")
    assert commit(tmp_path) == f"{clean} dirty"


def test_this_machine_is_named() -> None:
    run = Run.of_now("python -m benchmarks")
    assert run.cores >= 1
    assert run.memory > 2**20
    assert cpu_model()


def events(*found: tuple[int, int, float]) -> Events:
    """From (user, offset, seconds)."""
    places = np.array([user * 2**40 + offset for user, offset, _ in found], dtype=np.int64)
    return Events(places, np.array([at for *_, at in found], dtype=np.float64))


def test_a_click_is_answered_by_the_first_answer_to_it_or_to_a_later_click() -> None:
    anna, bert = 0, 1
    clicks = events((anna, 5, 1.0), (anna, 7, 2.0), (bert, 5, 1.0), (anna, 9, 4.0))
    answers = events((anna, 3, 0.5), (bert, 5, 1.5), (anna, 7, 3.0), (anna, 9, 4.25), (bert, 5, 9.0))
    assert Phase(clicks, answers).delays().tolist() == [2.0, 1.0, 0.5, 0.25]


@pytest.mark.parametrize("answer", [(0, 4, 2.0), (1, 5, 2.0)])
def test_a_click_without_answer_fails_the_benchmark(answer: tuple[int, int, float]) -> None:
    with pytest.raises(BenchmarkError, match="1 of 1 clicks have no answer"):
        Phase(events((0, 5, 1.0)), events(answer)).delays()


def test_rates_are_those_of_the_middle() -> None:
    # Ten answers a second, after a start that took long; each answers two clicks.
    begin = [0.0, 100.0]
    answers = events(*((0, 2 * n + 1, at) for n, at in enumerate([*begin, *(100 + k / 10 for k in range(1, 100))])))
    clicks = events(*((0, n, 0.0) for n in range(2 * len(answers))))
    phase = Phase(clicks, answers)
    assert phase.answer_rate() == pytest.approx(10, rel=0.05)
    assert phase.rate() == pytest.approx(20, rel=0.05)
    assert phase.coalesced() == pytest.approx(0.5)
    seconds, answered = phase.progress()
    assert seconds[0] == 0 and seconds[-1] == pytest.approx(109.9)
    assert np.diff(answered).tolist() == pytest.approx([len(clicks) / 50] * 50)


def test_lateness_is_that_behind_an_open_schedule() -> None:
    clicks = events((0, 0, 10.0), (0, 2, 10.5), (0, 3, 10.5), (1, 0, 10.1))  # as they lie in partitions
    assert Phase(clicks, events()).lateness(rate=10).tolist() == pytest.approx([0, 0.3, 0.2, 0])


class LateFirstItem(NewItems):
    """Its first item is found when three others were."""

    def __init__(self) -> None:
        self.published, self.others = 0, threading.Semaphore(0)

    def publish(self) -> tuple[int, FloatVector]:
        self.published += 1
        return self.published, np.zeros(2, np.float32)

    def await_found(self, item_id: int, vector: FloatVector, since: float) -> float:
        if item_id > 1:
            self.others.release()
        else:
            assert all(self.others.acquire(timeout=60) for _ in range(3))
        return time.monotonic() - since


class Alive(Worker):
    def __init__(self) -> None:
        pass

    def check(self) -> None:
        pass


def test_no_item_waits_for_one_before_it_to_be_found() -> None:
    first, *others = publish_all(LateFirstItem(), 4, Alive())
    assert len(others) == 3
    assert first > 0.59  # the fourth has its moment 0.6 s later


def test_the_traffic_of_a_shop(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", items=2000, dim=8, users=40, clicks=60)
    for traffic in (shop.rounds(), shop.sessions()):
        clicks, earlier = traffic.clicks(), dict(traffic.earlier(1000))
        assert len(clicks) + sum(map(len, earlier.values())) == len(traffic.log)
        for history in traffic.histories(20, 5, np.random.default_rng(0)):
            assert 1 <= len(history) <= 5
            assert set(history.tolist()) <= set(traffic.log.item.tolist())
    rounds, sessions = shop.rounds().clicks(), shop.sessions().clicks()
    in_order = rounds.user[np.argsort(rounds.order, kind="stable")]
    assert sorted(in_order[:40].tolist()) == sorted(in_order[40:].tolist()) == list(range(40))
    assert len(sessions) == 60
    oldest = sessions.order.min()
    assert np.count_nonzero(shop.sessions().log.order >= oldest) == 60  # the newest ones


def test_a_generated_model_computes_what_the_shipped_configuration_says(tmp_path: Path) -> None:
    artifact, network = random_artifact(tmp_path, items=10, dim=8), load_train().network
    assert Routing.from_dict(artifact.encoder) == Routing.from_network(network)
    assert artifact.interests == network.interests


def test_memory_grows_from_the_fewest_to_the_most_whatever_was_measured_first() -> None:
    points = {
        ("users", users): Point(1.0, 0.0, 0.0, worker_memory=300 * 2**20, milvus_memory=0, disk=users * 2**20 // 10_000)
        for users in (100_000, 500_000, 20_000)
    } | {("items", 7): Point(1.0, 0.0, 0.0, 0, 0, 0)}
    disk = slope("users", "histories on disk", points)
    assert disk.value == pytest.approx(100)
    assert disk.unit == "MiB / million users"
    assert slope("users", "memory of a worker", points).value == 0


def test_peak_memory_is_that_of_the_program_alone() -> None:
    held = np.ones(200 << 17)  # 200 MiB that a forked process begins with
    found = alone("import sys\nfound = {'given': sys.argv[1:]}", "a", "b")
    assert found["given"] == ["a", "b"]
    assert 2**20 < found["peak"] < held.nbytes / 2
    with pytest.raises(BenchmarkError, match="status 3\nspoken"):
        alone("import sys; print('spoken', file=sys.stderr); sys.exit(3)")


def test_curves_are_drawn(tmp_path: Path) -> None:
    curve = Curve("by ef", "recall@50, %", "queries/s", [90.0, 99.0], [4000.0, 2000.0])
    several = [dataclasses.replace(RESULT, curves=[curve]), RESULT, dataclasses.replace(RESULT, curves=5 * [curve])]
    draw(tmp_path / "curves.svg", several)
    assert (tmp_path / "curves.svg").read_text().count("<!-- recall@50, % -->") == 6
    draw(tmp_path / "none.png", [RESULT])  # no curve yet
    assert not (tmp_path / "none.png").exists()


def test_where_curves_cannot_be_drawn_is_said_beforehand(tmp_path: Path) -> None:
    check(tmp_path / "curves.PNG")
    with pytest.raises(click.ClickException, match=r"curves: no suffix cannot be drawn; known: .*png, .*svg"):
        check(tmp_path / "curves")
    with pytest.raises(click.ClickException, match="cannot be written: No such file"):
        check(tmp_path / "nowhere" / "curves.png")
