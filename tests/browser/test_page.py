"""The page in a real browser, on everything that `python -m embedded page` starts."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from embedded.instance import CHECKOUT
from producers.synthetic import Shape, generate
from tests.browser.browser import browser, console_errors, missing
from tests.site import environment

pytestmark = [pytest.mark.integration, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

WAIT_S = 60
#: Returns the names of what can be focused and has no accessible name.
_NAMELESS = """
return [...document.querySelectorAll("a, button, input, select, summary, [tabindex='0']")]
  .filter((e) => e.offsetParent && !(e.textContent.trim() || e.labels?.length || e.getAttribute("aria-label")))
  .map((e) => e.outerHTML)
"""


@dataclass(frozen=True)
class Running:
    """A running `python -m embedded page`: its process, folder and page, and the token to write with."""

    process: subprocess.Popen[str]
    folder: Path
    address: str
    token: str


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("page")
    generated = generate(Shape(users=600, items=300, clicks=6_000, tastes=6, tastes_per_user=2, drift=0.0), seed=1)
    clicks = folder / "clicks.csv"
    rows = zip(generated.user.tolist(), generated.item.tolist(), generated.order.tolist(), strict=True)
    clicks.write_text("".join(f"{user},{item},{order}\n" for user, item, order in rows))
    titles = folder / "titles.csv"
    titles.write_text("".join(f"{item},Book {item},Shelf {generated.item_taste[item]}\n" for item in range(1, 301)))
    sizes = ["--train-seconds", "5", "--milvus", "lite", "--rate", "3", "--no-open"]
    command = [sys.executable, "-m", "embedded", "page", "--data", str(clicks), "--titles", str(titles)]
    command += ["--dir", str(folder / "p"), *sizes]
    output, address, token = "", None, None
    with subprocess.Popen(
        command, cwd=CHECKOUT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                output += line
                address = address or re.search(r"The page: (\S+)", line)
                if token := re.search(r"new items: (\S+)", line):
                    break
            assert address is not None and token is not None, output
            yield Running(process, folder / "p", address[1], token[1])
        finally:
            process.send_signal(signal.SIGINT)
            process.stdout.read()


@pytest.fixture(scope="module", name="driver")
def _driver(running: Running) -> Iterator[Chrome]:
    with browser(1280, 900) as driver:
        driver.get(running.address)
        yield driver


def _one(driver: Chrome, selector: str) -> WebElement:
    return driver.find_element(By.CSS_SELECTOR, selector)


def _names(driver: Chrome, selector: str) -> list[str]:
    """Return the names of the items in a list, at one moment."""
    script = "return [...document.querySelectorAll(arguments[0] + ' button .name')].map((e) => e.textContent)"
    names: list[str] = driver.execute_script(script, selector)
    return names


def _text(driver: Chrome, selector: str) -> str:
    return str(driver.execute_script("return document.querySelector(arguments[0]).textContent", selector))


def _until(driver: Chrome, condition: Callable[[], object], what: str) -> None:
    WebDriverWait(driver, WAIT_S, poll_frequency=0.05).until(lambda _: condition(), what)


def _picture(driver: Chrome) -> str:
    return str(driver.execute_script("return document.querySelector('#map canvas').toDataURL()"))


def test_the_stream_is_live_and_the_map_appears(driver: Chrome) -> None:
    _until(driver, lambda: _text(driver, "#connection") == "Live", "the page to follow the stream")
    _until(driver, lambda: "–" not in _text(driver, "#clicks-rate") + _text(driver, "#latency"), "figures")
    _until(driver, lambda: not _one(driver, "#map .state").is_displayed(), "the map")
    assert _text(driver, "#replica") == "up to date"


def test_clicks_change_interests_list_and_map(driver: Chrome) -> None:
    before = _picture(driver)
    assert _names(driver, "#merged") == []
    first = _names(driver, "#found")[0]
    _one(driver, "#found button").click()
    _until(driver, lambda: _names(driver, "#history") == [first], "the click")
    _until(driver, lambda: len(_names(driver, "#merged")) == 20, "recommendations")
    assert first not in _names(driver, "#merged"), "what was clicked is not recommended again"
    assert len(driver.find_elements(By.CSS_SELECTOR, "#recalled section")) == 4
    _until(driver, lambda: _picture(driver) != before, "the map to change")
    recommended, interests, picture = _names(driver, "#merged"), _text(driver, "#recalled"), _picture(driver)
    driver.find_elements(By.CSS_SELECTOR, "#merged button")[9].click()
    _until(driver, lambda: _names(driver, "#history") == [recommended[9], first], "the second click")
    _until(driver, lambda: _names(driver, "#merged") != recommended, "other recommendations")
    assert _text(driver, "#recalled") != interests
    _until(driver, lambda: _picture(driver) != picture, "the map to change again")
    assert "Recommended first" in _text(driver, "#announcer"), "screen readers say it"
    driver.refresh()
    _until(driver, lambda: len(_names(driver, "#history")) == 2, "the clicks, which the browser has kept")


def test_everything_is_reached_and_done_by_keyboard(driver: Chrome) -> None:
    def press(*keys: str) -> None:
        ActionChains(driver).send_keys(*keys).perform()

    def focused() -> str:
        element = driver.switch_to.active_element
        return element.get_attribute("id") or element.get_attribute("class") or element.tag_name

    driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    press(Keys.TAB)
    assert focused() == "skip"
    press(Keys.ENTER)
    assert focused() == "clicks"
    visited = []
    while focused() != "query":
        press(Keys.TAB)
        visited.append(focused())
        assert len(visited) < 20, visited
    press("Book 7")
    _until(driver, lambda: _names(driver, "#found") and all("7" in n for n in _names(driver, "#found")), "the search")
    press(Keys.TAB)
    while driver.execute_script("return document.activeElement.item?.title") != "Book 7":
        press(Keys.TAB)
    press(Keys.ENTER)
    _until(driver, lambda: _names(driver, "#history")[0] == "Book 7", "the click by keyboard")
    driver.execute_script("document.getElementById('map').focus()")
    picture = _picture(driver)
    press("n")
    _until(driver, lambda: "Book" in _text(driver, "#announcer"), "the name of an item on the map")
    assert _one(driver, "#map .tip").is_displayed()
    press("+", "+", Keys.ARROW_LEFT)
    _until(driver, lambda: _picture(driver) != picture, "the map to zoom")
    press("0")
    assert "Interest 1 (circle)" in _text(driver, "#map-words"), "the map in words"
    assert driver.execute_script(_NAMELESS) == []


def test_a_user_of_the_stream_has_the_workers_history_and_list(driver: Chrome) -> None:
    _until(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "#active button"), "active users")
    driver.execute_script("document.querySelector('#active button').click()")
    _until(driver, lambda: _text(driver, "#subject").startswith("User "), "the user")
    _until(driver, lambda: _names(driver, "#history"), "the history")
    _until(driver, lambda: _names(driver, "#newest"), "what the worker published")
    _until(driver, lambda: "the same list" in _text(driver, "#published-note"), "service and worker to agree")


def test_clicks_and_items_are_written_with_a_token(driver: Chrome, running: Running) -> None:
    _one(driver, "#token").send_keys(running.token)
    _one(driver, "#send").click()
    user = str(_one(driver, "#as-user").get_property("value"))
    _until(driver, lambda: _text(driver, "#subject") == f"User {user}", "the new user")
    _until(driver, lambda: "no clicks" in _text(driver, "#subject-note"), "an honest empty state")
    _one(driver, "#query").clear()
    _until(driver, lambda: len(_names(driver, "#found")) > 5, "suggestions")
    driver.find_elements(By.CSS_SELECTOR, "#found button")[2].click()
    _until(driver, lambda: "acknowledged by Kafka" in _text(driver, "#written"), "Kafka's acknowledgement")
    _until(driver, lambda: len(_names(driver, "#history")) == 1, "the click, by way of the stream")
    _until(driver, lambda: "after the click" in _text(driver, "#written"), "the recommendation's latency")
    _until(driver, lambda: len(_names(driver, "#newest")) == 20, "the worker's recommendation")
    _one(driver, "#publish").click()
    _until(driver, lambda: "can be recalled" in _text(driver, "#written"), "the new item to be recallable")


def test_the_console_is_empty(driver: Chrome) -> None:
    assert console_errors(driver) == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_needs_no_scrolling_sideways(running: Running, dark: bool) -> None:
    with browser(360, 800, dark=dark) as driver:
        driver.get(running.address)
        _until(driver, lambda: _names(driver, "#found"), "the page")
        _one(driver, "#found button").click()
        _until(driver, lambda: len(_names(driver, "#merged")) == 20, "recommendations")
        assert driver.execute_script("return document.documentElement.scrollWidth") == 360
        assert console_errors(driver) == []


def test_a_lost_connection_is_shown_and_nothing_is_left_behind(driver: Chrome, running: Running) -> None:
    running.process.send_signal(signal.SIGINT)
    _until(driver, lambda: "lost" in _text(driver, "#connection"), "the page to notice")
    assert running.process.wait(60) == 0
    assert not running.folder.exists()
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert [line for line in lines if str(running.folder) in line] == []
