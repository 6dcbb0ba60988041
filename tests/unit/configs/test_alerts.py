"""Each alert of configs/observability/alerts.yml, evaluated by Prometheus' own `promtool test rules`.

A scenario gives the series that Prometheus would have scraped, and the minutes at which an alert must fire or not.
promtool is in Debian's package `prometheus`; without it, all but the last test are skipped.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ALERTS = Path(__file__).parents[3] / "configs" / "observability" / "alerts.yml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]
PROMTOOL = shutil.which("promtool")
DAY = 24 * 60


@dataclass(frozen=True)
class Scenario:
    """Series over time, in minutes from the start, and when one alert fires.

    Attributes:
        alert: name of the alert.
        name: what happens.
        series: series → values over time, for `samples`.
        fires: minutes at which the alert must fire.
        silent: minutes at which it must not.
        step_s: seconds between two scrapes and two evaluations.
    """

    alert: str
    name: str
    series: dict[str, str]
    fires: tuple[float, ...] = ()
    silent: tuple[float, ...] = ()
    step_s: int = 15


def samples(spans: str, step_s: int) -> str:
    """Return promtool's list of samples for spans like `1*10 -*5 0>60*2`: value or `from>to`, * minutes; - = gone."""
    found: list[str] = []
    for span in spans.split():
        value, minutes = span.split("*")
        count = round(float(minutes) * 60 / step_s)
        if value == "-":
            found += (["stale"] if found else ["_"]) + ["_"] * (count - 1)
            continue
        first, _, last = value.partition(">")
        step = (float(last) - float(first)) / count if last else 0.0
        found += [f"{float(first) + step * n:g}" for n in range(count)]
    return " ".join(found)


def up(job: str, instance: str) -> str:
    return f'up{{job="{job}", instance="{instance}"}}'


def worker(metric: str, *labels: str) -> str:
    return metric + "{" + ", ".join(('job="click-worker"', 'instance="a"', *labels)) + "}"


CLICKS, ITEMS = "click-worker", "item-worker"
#: A worker whose start is refused: a scrape finds its container running every few minutes, and its port closed.
REFUSED = "0*0.25 -*2.75 "

SCENARIOS = [
    Scenario("WorkerDown", "a port closes and opens again", {up(CLICKS, "a"): "1*5 0*5 1*5"}, (7, 9), (4, 5.5, 11)),
    Scenario("WorkerDown", "one scrape fails", {up(CLICKS, "a"): "1*5 0*0.25 1*5"}, silent=(5, 5.25, 6, 7)),
    Scenario(
        "WorkersMissing",
        "one of two workers is gone for hours, then back",
        {up(CLICKS, "a"): "1*400", up(CLICKS, "b"): "1*60 -*240 1*100"},
        fires=(64, 125, 200, 299),
        silent=(59, 62, 301),
        step_s=60,
    ),
    Scenario(
        "WorkersMissing",
        "a worker is removed for good",
        {up(CLICKS, "a"): f"1*{DAY + 120}", up(CLICKS, "b"): f"1*60 -*{DAY + 60}"},
        fires=(DAY - 10,),
        silent=(DAY + 65,),
        step_s=300,
    ),
    Scenario(
        "WorkersMissing",
        "workers are added, and one is replaced",
        {up(CLICKS, "a"): "1*60", up(CLICKS, "b"): "-*5 1*25 -*30", up(CLICKS, "c"): "-*30.5 1*29.5"},
        silent=(10, 29, 32, 34, 50),
    ),
    Scenario("NoClickWorker", "the only one is gone", {up(CLICKS, "a"): "1*5 -*5 1*5"}, (7, 9), (4, 5.5, 11)),
    Scenario(
        "NoClickWorker", "one of two is gone", {up(CLICKS, "a"): "1*5 -*9", up(CLICKS, "b"): "1*14"}, silent=(8, 13)
    ),
    Scenario("NoItemWorker", "the only one is gone", {up(ITEMS, "a"): "1*5 -*10 1*5"}, (11, 14), (4, 9, 16)),
    Scenario("NoItemWorker", "it is restarted", {up(ITEMS, "a"): "1*5 -*2 1*10"}, silent=(6, 8, 12)),
    Scenario(
        "WorkerRestarts",
        "a worker crashes four times",
        {worker("process_start_time_seconds"): "100*5 400*5 700*5 1000*5 1300*100"},
        fires=(20, 40),
        silent=(12, 14, 70),
    ),
    Scenario(
        "WorkerRestarts",
        "workers are updated twice",
        {worker("process_start_time_seconds"): "100*5 400*5 700*60"},
        silent=(9, 12, 30),
    ),
    Scenario(
        "WorkerRestarts",
        "every start is refused from the first one on, until the cause is fixed",
        {up(CLICKS, "a"): REFUSED * 15 + "1*40", up(CLICKS, "b"): "1*85"},
        fires=(8, 12, 20, 30, 44),
        silent=(4, 62, 80),
    ),
    Scenario(
        "WorkerRestarts",
        "every start is refused after the container was recreated",
        {up(ITEMS, "a"): "1*60 " + REFUSED * 20},
        fires=(78, 90, 119),
        silent=(59, 65),
    ),
    Scenario("WorkerRestarts", "a start takes four minutes", {up(CLICKS, "a"): "0*4 1*40"}, silent=(3, 6, 20)),
    Scenario("WorkerRestarts", "a worker is removed", {up(CLICKS, "a"): "1*30 0*0.5 -*40"}, silent=(31, 40, 45, 50)),
    Scenario(
        "ModelsDiffer",
        "one worker keeps the old model for an hour",
        {
            'mindstream_model_info{instance="a", version="m1"}': "1*120",
            'mindstream_model_info{instance="b", version="m1"}': "1*10 -*60 1*50",
            'mindstream_model_info{instance="b", version="m2"}': "-*10 1*60 -*50",
        },
        fires=(45, 69),
        silent=(9, 30, 71),
    ),
    Scenario(
        "ClickPartitionsWithoutOwner",
        "two of six partitions lose their owner for hours",
        {
            'mindstream_clicks_partitions{instance="a"}': "3*300 6*10",
            'mindstream_clicks_partitions{instance="b"}': "3*10 1*290 -*10",
            'mindstream_clicks_topic_partitions{instance="a"}': "6*310",
            'mindstream_clicks_topic_partitions{instance="b"}': "6*300 -*10",
        },
        fires=(14, 60, 120, 299),
        silent=(9, 12, 301),
    ),
    Scenario(
        "ClickPartitionsWithoutOwner",
        "a worker responds from the start, and owns nothing",
        {worker("mindstream_clicks_partitions"): "0*100", worker("mindstream_clicks_topic_partitions"): "6*100"},
        fires=(4, 99),
        silent=(2,),
    ),
    Scenario(
        "ClickPartitionsWithoutOwner",
        "a rebalance takes two minutes",
        {
            worker("mindstream_clicks_partitions"): "6*10 0*2 6*10",
            worker("mindstream_clicks_topic_partitions"): "6*22",
        },
        silent=(11, 12, 14),
    ),
    Scenario(
        "ItemPartitionsWithoutOwner",
        "the item worker owns nothing for hours",
        {
            worker("mindstream_items_partitions"): "4*10 0*200 4*10",
            worker("mindstream_items_topic_partitions"): "4*220",
        },
        fires=(16, 209),
        silent=(9, 14, 211),
    ),
    Scenario(
        "ClickLagGrows",
        "clicks arrive faster than they are answered, then no longer",
        {worker("mindstream_clicks_lag_messages", 'partition="0"'): "0>60000*30 60000>0*30"},
        fires=(15, 29),
        silent=(3, 9, 45),
    ),
    Scenario(
        "ClickLagGrows",
        "a large backlog becomes smaller",
        {worker("mindstream_clicks_lag_messages", 'partition="0"'): "90000>20000*30"},
        silent=(10, 20, 29),
    ),
    Scenario(
        "ItemsNotFresh",
        "items wait for half an hour",
        {worker("mindstream_items_lag_messages", 'partition="0"'): "0*10 5000*30 0*10"},
        fires=(21, 39),
        silent=(9, 15, 41),
    ),
    *(
        Scenario(
            alert,
            "messages wait, and no batch is completed",
            {
                worker(f"mindstream_{agent}_last_progress_timestamp_seconds"): "0>600*10 600*20 1800>2400*10",
                worker(f"mindstream_{agent}_lag_messages", 'partition="0"'): "0*9 50*21 0*10",
            },
            fires=(13, 29),
            silent=(9, 11, 31),
        )
        for alert, agent in (("ClicksStandStill", "clicks"), ("ItemsStandStill", "items"))
    ),
    *(
        Scenario(
            alert,
            "nothing waits",
            {
                worker(f"mindstream_{agent}_last_progress_timestamp_seconds"): "0*60",
                worker(f"mindstream_{agent}_lag_messages", 'partition="0"'): "0*60",
            },
            silent=(5, 59),
        )
        for alert, agent in (("ClicksStandStill", "clicks"), ("ItemsStandStill", "items"))
    ),
    *(
        Scenario(
            alert,
            "a call is retried until the worker gives up, and again after its restart",
            {worker(f"mindstream_{agent}_waiting_seconds"): "0*5 0>300*5 -*0.5 0>300*5 0*10"},
            fires=(7, 9.5, 11, 12, 15),
            silent=(4, 5.5, 19),
        )
        for alert, agent in (("ClicksRetry", "clicks"), ("ItemsRetry", "items"))
    ),
    *(
        Scenario(
            alert,
            "one in ten messages is unreadable for ten minutes",
            {
                worker(f"mindstream_{agent}_dead_letters_total", 'reason="not_json"'): "0*5 0>600*10 600*30",
                worker(f"mindstream_{agent}_batch_messages_sum"): "0>27000*45",
            },
            fires=(13, 15),
            silent=(4, 8, 35),
        )
        for alert, agent in (("ClickDeadLetters", "clicks"), ("ItemDeadLetters", "items"))
    ),
    *(
        Scenario(
            alert,
            "one in a thousand messages is unreadable, then there is no traffic",
            {
                worker(f"mindstream_{agent}_dead_letters_total", 'reason="not_json"'): "0>27*45 27*30",
                worker(f"mindstream_{agent}_batch_messages_sum"): "0>27000*45 27000*30",
            },
            silent=(10, 30, 50, 70),
        )
        for alert, agent in (("ClickDeadLetters", "clicks"), ("ItemDeadLetters", "items"))
    ),
    Scenario(
        "CatalogueNotFilled",
        "items are published twenty minutes after the start",
        {
            worker("mindstream_catalogue_rows"): "0*20 0>1000*10 1000*20",
            worker("mindstream_catalogue_model_items"): "1000*50",
        },
        fires=(11, 20),
        silent=(5, 31, 45),
    ),
    Scenario(
        "CatalogueNotFilled",
        "items are published at once, and a few are removed later",
        {
            worker("mindstream_catalogue_rows"): "0>1000*5 1000*20 920*20",
            worker("mindstream_catalogue_model_items"): "1000*45",
        },
        silent=(4, 12, 44),
    ),
    *(
        Scenario(
            alert,
            "three are counted",
            {worker(f"mindstream_{metric}_total"): "0*20 3*30"},
            fires=(21, 28),
            silent=(19, 32, 49),
        )
        for alert, metric in (
            ("ShortSearches", "searches_short"),
            ("ShortRecommendations", "recommendations_short"),
            ("EmptyRecommendations", "recommendations_empty"),
        )
    ),
    Scenario(
        "ItemRowsDiffer",
        "rows are repaired hour after hour, then no longer",
        {worker("mindstream_item_rows_repaired_total"): "0>300*300 300*400"},
        fires=(250, 300),
        silent=(30, 110, 690),
        step_s=60,
    ),
    Scenario(
        "ItemRowsDiffer",
        "rows are repaired once",
        {worker("mindstream_item_rows_repaired_total"): "0*90 500*300"},
        silent=(95, 130, 200, 380),
        step_s=60,
    ),
    Scenario(
        "ItemsNotCompared",
        "the comparison stops for five hours",
        {
            worker("mindstream_items_compared_timestamp_seconds"): "0>3600*60 3600*300 21600*20",
            worker("mindstream_items_partitions"): "4*380",
        },
        fires=(305, 350),
        silent=(50, 290, 365),
        step_s=60,
    ),
    *(
        Scenario(
            alert,
            "messages were removed, and the worker is restarted",
            {worker(f"mindstream_{agent}_removed_unread_total"): "0*5 7*90 -*1 0*10"},
            fires=(6, 90),
            silent=(4, 97, 100),
        )
        for alert, agent in (("ClicksRemovedUnread", "clicks"), ("ItemsRemovedUnread", "items"))
    ),
    Scenario(
        "ForeignChangelogMessages",
        "the first scrape finds three, another one comes after two hours",
        {worker("mindstream_changelog_foreign_messages_total"): "-*10 3*120 4*100"},
        fires=(12, 60, 132, 180),
        silent=(5, 80, 125, 200),
    ),
    Scenario(
        "DamagedStore",
        "a folder is set aside, and deleted by hand",
        {worker("mindstream_damaged_stores"): "0*5 1*90 0*5"},
        fires=(6, 90),
        silent=(4, 97),
    ),
    Scenario(
        "ReplicaBehind",
        "Kafka is unavailable to a service for half an hour",
        {'mindstream_replica_age_seconds{instance="a", replica="histories"}': "1*10 1>1800*30 1*20"},
        fires=(25, 39),
        silent=(9, 15, 45),
    ),
    Scenario(
        "ReplicaBehind",
        "a copy needs a quarter of an hour",
        {'mindstream_replica_age_seconds{instance="a", replica="histories"}': "NaN*15 1*20"},
        fires=(12,),
        silent=(5, 17),
    ),
    Scenario(
        "RecommendationsLate",
        "one in ten is late, then there is no traffic",
        {
            worker("mindstream_click_to_recommendation_seconds_bucket", 'le="2.5"'): "0>1000*10 1000>1900*10 1900*30",
            worker("mindstream_click_to_recommendation_seconds_bucket", 'le="5.0"'): "0>1000*10 1000>2000*10 2000*30",
            worker("mindstream_click_to_recommendation_seconds_bucket", 'le="+Inf"'): "0>1000*10 1000>2000*10 2000*30",
        },
        fires=(17, 20),
        silent=(9, 11, 27, 40),
    ),
]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: f"{scenario.alert}: {scenario.name}")
def test_an_alert_fires_and_stops(scenario: Scenario, tmp_path: Path) -> None:
    assert PROMTOOL is not None
    firing = f'count(ALERTS{{alertname="{scenario.alert}", alertstate="firing"}}) or vector(0)'
    checks = [(minute, 1) for minute in scenario.fires] + [(minute, 0) for minute in scenario.silent]
    suite = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": f"{scenario.step_s}s",
        "tests": [
            {
                "interval": f"{scenario.step_s}s",
                "input_series": [
                    {"series": name, "values": samples(spans, scenario.step_s)}
                    for name, spans in scenario.series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": firing,
                        "eval_time": f"{round(minute * 60)}s",
                        "exp_samples": [{"labels": "{}", "value": expected}],
                    }
                    for minute, expected in checks
                ],
            }
        ],
    }
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump(suite, width=1_000_000), encoding="utf-8")
    done = subprocess.run([PROMTOOL, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, re.sub(r"\n\s*\n", "\n", done.stdout + done.stderr)


def alerts(firing: bool) -> Iterator[str]:
    yield from (s.alert for s in SCENARIOS if (s.fires if firing else s.silent))


def test_every_alert_has_scenarios_in_which_it_fires_and_does_not() -> None:
    names = {rule["alert"] for rule in RULES}
    assert set(alerts(firing=True)) == names
    assert set(alerts(firing=False)) == names
