"""The page when answers fail, come late or not at all, in a real browser on answers that the test decides on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.browser import browser, console_errors, missing
from tests.browser.fake_service import TOKEN, FakeService, serving

pytestmark = [pytest.mark.integration, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

WAIT_S = 30
LISTS = ("#history", "#merged", "#newest")
#: Returns the smallest contrast of the texts that match a selector with the background behind them, by WCAG 2.
_CONTRAST = """
const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => {
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = parts(colour).slice(0, 3).map((c) => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const opaque = (e) => { const c = parts(getComputedStyle(e).backgroundColor); return c.length === 3 || c[3] === 1; };
return Math.min(...[...document.querySelectorAll(arguments[0])].map((e) => {
  let behind = e;
  while (!opaque(behind)) behind = behind.parentElement;
  let opacity = 1;
  for (let one = e; one; one = one.parentElement) opacity *= Number(getComputedStyle(one).opacity);
  const [a, b] = [light(getComputedStyle(e).color), light(getComputedStyle(behind).backgroundColor)];
  const mixed = opacity * a + (1 - opacity) * b;
  return (Math.max(mixed, b) + 0.05) / (Math.min(mixed, b) + 0.05);
}));
"""


class _Shown:
    """The page in a browser."""

    def __init__(self, driver: Chrome, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self, user: str | None = None) -> None:
        self.driver.get("about:blank")
        self.driver.get(self.address + (f"#user={user}" if user else ""))
        self.until(lambda: self.text("#connection") == "Live" and self.names("#found"), "the page")

    def text(self, selector: str) -> str:
        return str(self.driver.execute_script("return document.querySelector(arguments[0]).textContent", selector))

    def names(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0] + ' button .name')].map((e) => e.textContent)"
        names: list[str] = self.driver.execute_script(script, selector)
        return names

    def lists(self) -> list[str]:
        return [name for selector in LISTS for name in self.names(selector)]

    def is_shown(self, selector: str) -> bool:
        return self.driver.find_element(By.CSS_SELECTOR, selector).is_displayed()

    def is_busy(self) -> bool:
        return self.driver.find_element(By.TAG_NAME, "main").get_attribute("aria-busy") is not None

    def click(self, selector: str) -> None:
        self.driver.execute_script("document.querySelector(arguments[0]).click()", selector)

    def type(self, selector: str, text: str) -> None:
        field = self.driver.find_element(By.CSS_SELECTOR, selector)
        field.clear()
        field.send_keys(text)

    def show(self, user: str) -> None:
        self.driver.execute_script("location.hash = `user=${arguments[0]}`", user)

    def until(self, condition: Callable[[], object], what: str) -> None:
        WebDriverWait(self.driver, WAIT_S, poll_frequency=0.02).until(lambda _: condition(), what)


@pytest.fixture(scope="module", name="driver")
def _driver() -> Iterator[Chrome]:
    with browser(1280, 900) as driver:
        yield driver


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def page(driver: Chrome, service: FakeService) -> Iterator[_Shown]:
    with serving(service) as address:
        yield _Shown(driver, address)
        driver.get("about:blank")
    assert [text for text in console_errors(driver) if "Failed to load resource" not in text] == []


def test_after_a_failed_switch_the_former_users_lists_are_gone(page: _Shown, service: FakeService) -> None:
    page.open("anna")
    page.until(lambda: page.names("#newest") == ["for anna 0", "for anna 1", "for anna 2"], "anna")
    service.failing["/page/users/bob"] = 503
    page.show("bob")
    page.until(lambda: page.is_shown("#problem"), "the problem")
    assert (page.text("#subject"), page.lists()) == ("User bob", [])
    assert "Not known" in page.text("#subject-note")
    assert not page.is_busy()
    page.click("#found button")
    page.until(lambda: "bob are not known" in page.text("#announcer"), "a click to be refused")
    service.failing.clear()
    page.click("#retry")
    page.until(lambda: page.names("#history") == ["bob clicked 2", "bob clicked 1"], "bob")
    assert not page.is_shown("#problem")


def test_lists_that_could_not_be_renewed_are_said_to_be_older(page: _Shown, service: FakeService) -> None:
    page.open("anna")
    page.until(page.lists, "anna")
    service.failing["/page/users"] = 503
    service.events.append({"kind": "click", "user": "anna", "offset": 1, "latency_s": None})
    page.until(lambda: page.is_shown("#problem"), "the problem")
    assert "older" in page.text("#subject-note") and page.names("#history")[0] == "anna clicked 3"
    assert not page.is_busy()


def test_late_answers_change_nothing(page: _Shown, service: FakeService) -> None:
    page.open()
    service.held["/page/users/anna"] = threading.Event()
    service.failing["/page/users/anna"] = 503
    page.show("anna")
    page.until(lambda: service.count("GET /page/users/anna") > 0, "the request")
    page.show("bob")
    page.until(lambda: page.names("#history") == ["bob clicked 2", "bob clicked 1"], "bob")
    service.held.pop("/page/users/anna").set()
    page.show("carl")  # unknown: its answer comes after the late one
    page.until(lambda: "no clicks of this user" in page.text("#subject-note"), "an honest empty state")
    assert not page.is_shown("#problem") and page.lists() == []


def test_a_problem_stays_until_the_same_question_is_answered(page: _Shown, service: FakeService) -> None:
    page.open()
    service.failing["/page/items"] = 500
    page.type("#query", "Moon")
    page.until(lambda: page.is_shown("#problem"), "the problem of the search")
    page.show("anna")
    page.until(page.lists, "anna")
    assert page.is_shown("#problem") and "/page/items fails" in page.text("#problem"), (
        "another answer does not clear it"
    )
    service.failing.clear()
    page.click("#retry")
    page.until(lambda: not page.is_shown("#problem") and page.names("#found") == ["Moons"], "the search")


def test_events_of_a_busy_user_are_read_together(page: _Shown, service: FakeService) -> None:
    page.open("anna")
    page.until(lambda: page.lists() and not page.is_busy(), "anna")
    before = service.count("GET /page/users")
    held = service.held["/page/users"] = threading.Event()
    service.events += [{"kind": "click", "user": "anna", "offset": i, "latency_s": None} for i in range(1, 50)]
    page.until(lambda: service.count("GET /page/users") == before + 1, "the first request")
    service.events.append({"kind": "recommendation", "user": "anna", "offset": 49, "latency_s": 0.5})
    page.until(lambda: "500 ms after the click" in page.text("#written"), "all events")
    assert service.count("GET /page/users") == before + 1, "one at a time"
    service.clicks["anna"], service.offset = 4, 49
    service.held.clear()
    held.set()
    page.until(lambda: len(page.names("#history")) == 4, "the newest click")
    page.until(lambda: not page.is_busy(), "the last answer")
    assert service.count("GET /page/users") <= before + 2
    assert service.most_at_once == 1


def test_a_wrong_token_to_write_is_no_question_for_one_to_read(page: _Shown, service: FakeService) -> None:
    page.open()
    page.type("#token", "another-token")
    page.type("#as-user", "anna")
    page.click("#send")
    page.until(page.lists, "anna")
    page.click("#found button")
    page.until(lambda: page.is_shown("#problem"), "the problem")
    assert "Nothing was written: the service does not know this token." in page.text("#problem")
    assert not page.is_shown("#credentials")
    page.type("#token", TOKEN)
    page.click("#retry")
    page.until(lambda: not page.is_shown("#problem"), "the click")
    assert service.written == [{"user_id": "anna", "item_id": 1}]


def test_a_failed_click_stays_in_the_log_when_a_later_one_succeeds(page: _Shown, service: FakeService) -> None:
    page.open()
    page.type("#token", TOKEN)
    page.type("#as-user", "anna")
    page.click("#send")
    page.until(page.lists, "anna")
    service.failing["/v1/clicks"] = 503
    page.click("#found button")
    page.until(lambda: page.is_shown("#problem"), "the problem")
    service.failing.clear()
    page.click("#found button")
    page.until(lambda: "acknowledged by Kafka after" in page.text("#written"), "the second one")
    assert not page.is_shown("#problem")
    assert "not acknowledged" in page.text("#written")


def test_a_user_is_read_again_when_the_service_has_copied_all_histories(page: _Shown, service: FakeService) -> None:
    service.has_copied, clicks = False, service.clicks.pop("anna")
    page.open("anna")
    page.until(lambda: "still reads the histories" in page.text("#subject-note"), "the note")
    service.has_copied, service.clicks["anna"] = True, clicks
    page.until(lambda: len(page.names("#history")) == clicks, "the history")


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_to_read_is_asked_for(page: _Shown, service: FakeService, status: int) -> None:
    service.failing["/page"] = status
    page.driver.get(page.address)
    page.until(lambda: page.is_shown("#credentials"), "the question")
    assert not page.is_shown("#problem")
    page.type("#read-token", "wrong" + Keys.ENTER)
    page.until(lambda: "does not accept" in page.text("#credentials"), "the wrong token to be named")
    page.type("#read-token", "wröng" + Keys.ENTER)
    page.until(lambda: "ASCII" in page.text("#credentials"), "the wrong character to be named")
    service.failing.clear()
    page.type("#read-token", "right" + Keys.ENTER)
    page.until(lambda: page.names("#found") and page.text("#connection") == "Live", "the page")
    assert not page.is_shown("#credentials")


def test_the_page_says_as_whom_a_click_is_sent_when_it_is_made(page: _Shown, service: FakeService) -> None:
    page.open()
    assert not page.is_shown("#sending")
    page.type("#as-user", "anna")
    page.click("#send")
    assert "not sent" in page.text("#sending"), "there is no token"
    page.type("#token", TOKEN)
    page.click("#found button")
    page.until(lambda: page.text("#subject") == "User anna", "the user as whom it was sent")
    assert page.text("#sending") == "Your clicks are sent to the stream as user anna."
    page.show("bob")
    page.until(lambda: page.text("#subject") == "User bob", "bob")
    assert page.text("#sending") == "Your next click is sent to the stream as user anna, who is shown then."
    page.click("#merged button")
    page.until(lambda: page.text("#subject") == "User anna", "anna again")
    page.type("#as-user", "bob")
    assert "user bob, who is shown then" in page.text("#sending")
    assert service.written == [{"user_id": "anna", "item_id": 1}, {"user_id": "anna", "item_id": 90}]
    page.click("#send")
    page.click("#found button")
    page.until(lambda: page.text("#subject") == "Your clicks", "a made-up user")
    assert len(service.written) == 2 and not page.is_shown("#sending")


def test_a_stream_that_says_nothing_is_connected_again(page: _Shown, service: FakeService) -> None:
    page.open("anna")
    page.until(page.lists, "anna")
    page.driver.execute_script(
        "window.said = 0; new MutationObserver(() => window.said++)"
        ".observe(document.getElementById('connection'), {childList: true, characterData: true, subtree: true})"
    )
    service.silent = True
    page.until(lambda: page.text("#connection") == "Connection lost", "the page to notice")
    age = page.text("#figures-age")
    page.until(lambda: page.text("#figures-age") not in ("", age), "the age to grow")
    assert page.driver.execute_script("return window.said") == 1, "the age is not read out"
    page.until(lambda: service.count("GET /page/live") >= 2, "another connection")
    service.clicks["anna"] = 4  # meanwhile, and its event is missed
    service.silent = False
    page.until(lambda: page.text("#connection") == "Live", "the stream")
    assert page.text("#figures-age") == ""
    page.until(lambda: len(page.names("#history")) == 4, "the user to be read again")


@pytest.mark.parametrize("dark", [False, True])
def test_old_figures_are_shown_as_old_and_can_be_read(page: _Shown, service: FakeService, dark: bool) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    page.open()
    assert page.driver.execute_script(_CONTRAST, "#live dt, #live dd, .note, .chip") >= 4.5
    service.age_s = 12.0
    page.until(lambda: page.text("#connection") == "Kafka does not answer", "the age of the figures")
    assert page.text("#figures-age").startswith("figures are 1")
    assert page.driver.execute_script("return document.getElementById('live').className") == "old"
    assert page.driver.execute_script(_CONTRAST, "#live dt, #live dd, .note, .chip") >= 4.5
    service.age_s, service.fault = 0.1, "the lag is not known"
    page.until(lambda: page.text("#connection") == "Live", "Kafka to answer")


def test_titles_are_texts(page: _Shown, service: FakeService) -> None:
    title = "<img src=x onerror=\"document.title='owned'\"><b>Comets</b> & 'Co'"
    service.titles = [title]
    page.open()
    assert page.names("#found") == [title]
    page.driver.execute_script("location.hash = 'user=' + encodeURIComponent(arguments[0])", title)
    page.until(lambda: page.text("#subject") == f"User {title}", "the user")
    assert page.driver.execute_script("return document.querySelectorAll('#found img, #subject img').length") == 0
    page.driver.get("about:blank")
    page.driver.get(page.address + "#user=%")
    page.until(lambda: page.text("#subject") == "Your clicks", "an address that is none to be ignored")


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_users_of_any_size(service: FakeService, dark: bool) -> None:
    service.clicks["w" * 200] = 500
    with serving(service) as address, browser(360, 800, dark=dark) as driver:
        page = _Shown(driver, address)
        page.open("w" * 200)
        page.until(lambda: len(page.names("#history")) == 50, "the clicks")
        assert "450 older clicks that the model does not read" in page.text("#history")
        assert "500 clicks in the worker's history" in page.text("#subject-note")
        service.age_s = 12.0
        page.until(lambda: page.text("#connection") == "Kafka does not answer", "old figures")
        assert driver.execute_script("return document.documentElement.scrollWidth") == 360
        page.show("unknown")
        page.until(lambda: "no clicks of this user" in page.text("#subject-note"), "an unknown user")
        assert page.lists() == [] and "nothing to recall" in page.text("#merged-empty")
        assert console_errors(driver) == []
