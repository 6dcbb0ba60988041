"""The page of the recall service on real servers: everything is started, clicks flow, and it runs until Ctrl-C.

data → training, unless there is a model → topics → worker → items → service → replay, until interrupted
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from embedded import ports
from embedded.demo.data import DemoData
from embedded.demo.run import Demo, DemoOptions, guarded
from embedded.demo.titles import write_names
from embedded.deployment import PRODUCER_SECTIONS, Deployment
from embedded.stack import Flavour

#: Clicks/s: slow enough to follow a user with the eye.
RATES: dict[Flavour, float] = {"standalone": 20.0, "lite": 2.0, "none": 20.0}
#: Seconds of clicks that are held out of training; when all were sent, the replay begins again.
REPLAY_S = 3600.0
#: Sections of the configuration that the service has.
_SERVICE_SECTIONS = ("kafka", "topics", "milvus", "model", "history", "recall", "worker", "service")
#: Seconds between two checks whether a program has failed.
_CHECK_S = 0.5


@dataclass(frozen=True, slots=True)
class PageOptions:
    """Options of the command line beside those of the demo.

    Attributes:
        artifact: a model that was trained on these data; None = one is trained.
        titles: CSV file with the names of items; None = those of generated items, or none.
        port: of the service; 0 = any free one.
        open: whether to open the page where a desktop is.
    """

    artifact: Path | None
    titles: Path | None
    port: int
    open: bool


class PageDemo(Demo):
    """One run, in a folder of its own, which is deleted at the end.

    Args:
        folder: for servers, model, data and logs.
        options: of the demo; its rate is replaced by one of `RATES` if it is None.
        page: of the page.
        console: where the progress is shown.
    """

    def __init__(self, folder: Path, options: DemoOptions, page: PageOptions, console: Console) -> None:
        super().__init__(folder, options, console)
        self._rate = options.rate or RATES[self._flavour]
        self._page = page

    def _run_on(self, deployment: Deployment, data: DemoData) -> bool:
        if self._page.artifact is None:
            self._train(deployment, data)
        else:
            shutil.copytree(self._page.artifact, self._folder / "artifact")
        self._start_worker(deployment)
        self._step("Starting the service")
        address, token = self._start_service(deployment, data)
        self._step(f"Replaying clicks at {self._rate:g} a second")
        command = ["producers.replay", str(data.replay), "--rate", str(self._rate), "--order", data.order, "--loop"]
        deployment.start(*command, sections=PRODUCER_SECTIONS)
        self._print("")
        self._step(f"The page: {address}")
        self._print(f"  token with the right to write, for clicks of your own and new items: {token}")
        self._print("  Ctrl-C stops everything and deletes it.")
        if self._page.open and _has_desktop():
            webbrowser.open(address)
        while True:
            deployment.check()
            time.sleep(_CHECK_S)

    def _start_service(self, deployment: Deployment, data: DemoData) -> tuple[str, str]:
        """Start the service, wait until it is ready, and return its address and the token to write with."""
        port = self._page.port or ports.pick(1)[0]
        token, token_file = secrets.token_urlsafe(24), self._folder / "write-token"
        token_file.touch(mode=0o600)
        token_file.write_text(token)
        settings = [f"service.port={port}", f"service.data_dir={self._folder / 'service'}"]
        settings.append(f"service.write_token_file={token_file}")
        titles = self._page.titles
        if titles is None and data.names:
            titles = self._folder / "titles.csv"
            write_names(data.names, titles)
        if titles is not None:
            settings.append(f"service.titles={titles.resolve()}")
        sets = [argument for setting in settings for argument in ("--set", setting)]
        service = deployment.start("streams", "service", *sets, sections=_SERVICE_SECTIONS, name="service")
        service.await_http(port, "/readyz")
        return f"http://{ports.HOST}:{port}/", token


def _has_desktop() -> bool:
    """Return whether a browser can be opened: macOS and Windows have a desktop, others one if a display is named."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"})


def run_page(options: DemoOptions, page: PageOptions, folder: Path) -> int:
    """Run until interrupted, and return the exit status: 0, or that of the error, after which the logs are kept."""
    console = Console(highlight=False)

    def whole() -> int:
        try:
            PageDemo(folder, options, page, console).run()
        except KeyboardInterrupt:
            shutil.rmtree(folder, ignore_errors=True)
            console.print("Stopped; everything is deleted.")
        return 0

    return guarded(console, "page", whole)
