"""Make the screenshots of the documents: `python -m tests.browser ADDRESS`, of what `make page` has started."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from configs.cli import Command
from configs.errors import EXIT_FAILURE
from embedded.instance import CHECKOUT
from tests.browser.browser import browser, missing

#: Folder of the documents' screenshots, and the largest size of a file there.
FOLDER = CHECKOUT / "streams" / "service" / "screenshots"
MAX_BYTES = 150_000
_WAIT_S = 120
_EPILOG = """\b
Example:
  python -m tests.browser http://127.0.0.1:8080/
"""


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("address")
@click.option("--user", help="Id of the user who is shown; default: the active one with the most clicks.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=FOLDER, help="Folder for the files.")
def main(address: str, user: str | None, out: Path) -> None:
    """Make the screenshots of the page at ADDRESS: start, one user, and a phone."""
    if (reason := missing()) is not None:
        click.echo(f"Error: {reason}", err=True)
        sys.exit(EXIT_FAILURE)
    out.mkdir(parents=True, exist_ok=True)
    with browser(1280, 900) as driver:
        driver.get(address)
        _await_figures(driver)
        _save(driver, out / "start.png")
        chosen = user or _busiest(driver)
    with browser(1280, 1040) as driver:
        driver.get(f"{address}#user={chosen}")
        _await_figures(driver)
        _await(driver, "#merged li")
        _save(driver, out / "user.png")
    with browser(360, 800, dark=True) as driver:
        driver.get(f"{address}#user={chosen}")
        _await_figures(driver)
        _await(driver, "#merged li")
        driver.execute_script("document.getElementById('interests').scrollIntoView()")
        _save(driver, out / "phone.png")


def _await(driver: Chrome, selector: str) -> None:
    WebDriverWait(driver, _WAIT_S).until(lambda _: driver.find_elements(By.CSS_SELECTOR, selector), selector)


def _await_figures(driver: Chrome) -> None:
    """Wait for the map, and for figures of at least 200 clicks."""
    script = r"""
    const known = (id) => !document.getElementById(id).textContent.startsWith("–");
    const note = document.getElementById("hits-note").textContent;
    const judged = Number(note.replace(/\D*([\d,]*).*/, "$1").replace(",", ""));
    return judged >= 200 && document.querySelector("#map .state").hidden
      && ["clicks-rate", "latency", "lag", "hits"].every(known);
    """
    WebDriverWait(driver, _WAIT_S).until(lambda _: driver.execute_script(script), "map and figures")


def _busiest(driver: Chrome) -> str:
    script = """
    const done = arguments[0];
    const read = async (user) => (await fetch(`/page/users/${encodeURIComponent(user)}`)).json();
    const users = [...document.querySelectorAll("#active button")].map((button) => button.textContent);
    Promise.all(users.map(async (user) => [(await read(user)).history.length, user]))
      .then((found) => done(found.sort((a, b) => b[0] - a[0])[0][1]));
    """
    return str(driver.execute_async_script(script))


def _save(driver: Chrome, path: Path) -> None:
    image = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    # An octree keeps the few colours of small shapes; a third of the bytes.
    image = image.quantize(256, method=Image.Quantize.FASTOCTREE)
    image.save(path, optimize=True)
    click.echo(f"{path}: {path.stat().st_size:,} bytes")
    if path.stat().st_size > MAX_BYTES:
        click.echo(f"Error: more than {MAX_BYTES:,} bytes; show less", err=True)
        sys.exit(EXIT_FAILURE)


if __name__ == "__main__":
    main(prog_name="python -m tests.browser")
