"""A headless Chromium, driven by Selenium: from Debian's packages, or wherever else the two programs are found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

#: Programs that are looked for, and how Debian installs them.
_PROGRAMS = ("chromium", "chromedriver")
_INSTALL = "apt-get install --no-install-recommends chromium chromium-driver"


def missing() -> str | None:
    """Return what is missing for a browser, with the remedy; None if everything is there."""
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    return f"{' and '.join(absent)} not found; on Debian: {_INSTALL}" if absent else None


@contextmanager
def browser(width: int, height: int, *, dark: bool = False) -> Iterator[Chrome]:
    """Run a browser in a block, without its own network traffic; `width` and `height` are those of the page."""
    binary, driver_path = (shutil.which(name) for name in _PROGRAMS)
    assert binary is not None and driver_path is not None, missing()
    options = ChromeOptions()
    options.binary_location = binary
    # No sandbox: in containers it needs rights that a test does not have. The page is our own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-proxy-server"):
        options.add_argument(argument)
    options.add_argument("--disable-background-networking")
    options.add_argument("--hide-scrollbars")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    environment = os.environ | {"NO_PROXY": "127.0.0.1,localhost"}
    driver = Chrome(options=options, service=ChromeService(driver_path, env=environment))
    try:
        # A window has a smallest width; an emulated screen has none.
        screen: dict[str, Any] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield driver
    finally:
        driver.quit()


def console_errors(driver: Chrome) -> list[str]:
    """Return the warnings and errors of the console since the last call."""
    return [str(entry["message"]) for entry in _log(driver) if entry["level"] in ("SEVERE", "WARNING")]


def _log(driver: Chrome) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = driver.get_log("browser")  # type: ignore[no-untyped-call]  # Selenium's only one
    return entries
