"""Leave the page open, as an operator would, and report the memory of tab and service.

    python -m tests.browser.endurance http://127.0.0.1:8080/ --minutes 60

The page shows the stream and follows one of its active users, another one each minute.
"""

from __future__ import annotations

import sys
import time
from typing import NamedTuple

import click
from selenium.webdriver import Chrome

from configs.cli import Command
from configs.errors import EXIT_FAILURE
from tests.browser.browser import browser, console_errors, missing

_MINUTE_S = 60.0


class Sample(NamedTuple):
    """One look at tab and service.

    Attributes:
        minute: since the start.
        heap_mb: JavaScript objects of the tab after garbage collection, in MB.
        nodes: DOM nodes of the tab, with those that are not shown.
        service_mb: resident memory of the service, in MB.
        connection: what the page says of its connection.
        shown: what the page says of the user.
    """

    minute: int
    heap_mb: float
    nodes: int
    service_mb: float
    connection: str
    shown: str


@click.command(cls=Command)
@click.argument("address")
@click.option("--minutes", default=60, show_default=True, type=click.IntRange(1))
def main(address: str, minutes: int) -> None:
    """Follow the page at ADDRESS for some minutes, and print one line for each."""
    if (reason := missing()) is not None:
        click.echo(f"Error: {reason}", err=True)
        sys.exit(EXIT_FAILURE)
    errors: list[str] = []
    click.echo("minute  tab, MB  nodes  service, MB  connection; user")
    with browser(1280, 1040) as driver:
        driver.get(address)
        started = time.monotonic()
        for minute in range(minutes + 1):
            time.sleep(max(0.0, started + minute * _MINUTE_S - time.monotonic()))
            sample = _look(driver, minute)
            click.echo(
                f"{sample.minute:6}  {sample.heap_mb:7.1f}  {sample.nodes:5}  {sample.service_mb:11.1f}  "
                f"{sample.connection}; {sample.shown}"
            )
            errors += console_errors(driver)
            _follow_another(driver, minute)
    for error in errors:
        click.echo(f"console: {error}", err=True)
    sys.exit(EXIT_FAILURE if errors else 0)


def _look(driver: Chrome, minute: int) -> Sample:
    driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    driver.execute_cdp_cmd("Performance.enable", {})
    metrics = {one["name"]: one["value"] for one in driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
    read = "fetch('/metrics').then((answer) => answer.text()).then(arguments[0])"
    lines = str(driver.execute_async_script(read)).splitlines()
    resident = next(float(line.split()[1]) for line in lines if line.startswith("process_resident_memory_bytes"))
    text = "return ['connection', 'subject-note'].map((id) => document.getElementById(id).textContent)"
    connection, shown = driver.execute_script(text)
    return Sample(minute, metrics["JSHeapUsedSize"] / 1e6, int(metrics["Nodes"]), resident / 1e6, connection, shown)


def _follow_another(driver: Chrome, number: int) -> None:
    """Click the name of an active user, if there is one."""
    script = """
    const users = [...document.querySelectorAll("#active button")];
    users[arguments[0] % users.length]?.click();
    """
    driver.execute_script(script, number)


if __name__ == "__main__":
    main(prog_name="python -m tests.browser.endurance")
