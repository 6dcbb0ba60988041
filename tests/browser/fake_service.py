"""The page's files, and answers that a test decides on: those of the service come at no certain moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from streams.service.page import FILES, HEADERS

TOKEN = "the-right-token"  # noqa: S105 - of nothing
_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FIGURES = {
    "clicks_per_s": 3.0,
    "recommendations_per_s": 3.0,
    "latency": {"p50_s": 0.02, "p99_s": 0.05, "count": 9},
    "hit_rate": {"ours": 0.1, "popular": 0.02, "judged": 9, "cutoff": 50},
    "active": ["anna", "bob"],
}


class FakeService:
    """Answers to the page.

    Attributes:
        failing: beginnings of paths that are answered with a problem → its status.
        held: beginnings of paths whose answers wait for an event.
        titles: of the items that are found; users' items are named after them.
        clicks: user → number of clicks in the worker's history; others are unknown.
        offset: of each history's newest click.
        has_copied: the service has copied all histories.
        age_s, fault: of the figures. silent: the stream is open, and nothing comes.
        events: of the stream that wait.
        asked: method and path of each request. most_at_once: of requests for one user.
        written: bodies that were sent with the right token.
    """

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}
        self.held: dict[str, threading.Event] = {}
        self.titles: Sequence[str] = ["Comets", "Moons", "Tides"]
        self.clicks = {"anna": 3, "bob": 2}
        self.offset = 0
        self.has_copied = True
        self.age_s = 0.2
        self.fault = ""
        self.silent = False
        self.events: list[Mapping[str, Any]] = []
        self.asked: list[str] = []
        self.most_at_once = 0
        self.written: list[Any] = []
        self._at_once = 0
        self._lock = threading.Lock()

    def count(self, beginning: str) -> int:
        """Return the number of requests so far."""
        return sum(one.startswith(beginning) for one in self.asked)

    def answer(self, path: str, body: Any, token: str) -> tuple[int, Any]:
        """Return the status and the JSON value of an answer."""
        name = unquote(urlsplit(path).path)
        begun = next((one for one in (*self.held, *self.failing) if name.startswith(one)), "")
        if begun in self.held:
            self.held[begun].wait(60)
        if begun in self.failing:
            return self.failing[begun], {"title": "Unavailable", "detail": f"{begun} fails, for the test"}
        if name == "/page/start":
            return 200, {"model_version": "m1", "history_length": 50, "items": self._items(self.titles)}
        if name == "/page/items":
            (query,) = parse_qs(urlsplit(path).query)["q"]
            return 200, {"items": self._items([title for title in self.titles if query in title])}
        if name == "/page/map":
            return 200, {"state": "computing", "fault": "", "items": []}
        if name == "/page/explanation":
            return 200, _explained("made up", body["history"])
        if name.startswith("/page/users/"):
            return 200, self._user(name.removeprefix("/page/users/"))
        if name == "/v1/clicks" and token == TOKEN:
            self.written.append(body)
            return 200, {}
        return 401, {"detail": "the service does not know this token"}

    def states(self) -> Iterator[bytes]:
        """Yield the events of the stream."""
        while not self.silent:
            known = {"age_s": self.age_s, "fault": self.fault, "replicas": self._replicas()}
            yield b"event: state\ndata: " + orjson.dumps({"figures": _FIGURES, "lag": 0} | known) + b"\n\n"
            for _ in range(10):
                while self.events:
                    yield b"event: user\ndata: " + orjson.dumps(self.events.pop(0)) + b"\n\n"
                time.sleep(0.02)

    @contextmanager
    def counted(self, asked: str) -> Iterator[None]:
        """Count a request while it is answered."""
        self.asked.append(asked)
        step = int("/page/users/" in asked)
        with self._lock:
            self._at_once += step
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= step

    def _items(self, titles: Sequence[str]) -> list[dict[str, str]]:
        return [{"id": str(i), "title": title, "category": "Sky"} for i, title in enumerate(titles, start=1)]

    def _user(self, user: str) -> dict[str, Any]:
        n = self.clicks.get(user)
        stored = None if n is None else {"partition": 0, "offset": self.offset, "updated_at": time.time()}
        explained = _explained(user, list(map(str, range(1, (n or 0) + 1))))
        newest = None if n is None else {"items": explained["merged"], "ts": time.time()}
        return explained | {"stored": stored, "newest": newest, "replicas": self._replicas()}

    def _replicas(self) -> dict[str, Any]:
        lag = {"messages": 0, "age_s": 0.5, "caught_up": self.has_copied}
        return {"histories": lag, "recommendations": lag}


def _explained(user: str, history: Sequence[str]) -> dict[str, Any]:
    """Return lists that name their user; the model reads the newest 50 clicks."""
    clicked = [{"id": item, "title": f"{user} clicked {item}", "category": ""} for item in reversed(history)]
    found = [
        {"id": f"9{i}", "title": f"for {user} {i}", "category": "Sky", "interest": 0} for i in range(len(history[:5]))
    ]
    return {
        "history": clicked,
        "clicks": [item | {"shares": [0.02], "feeds": 0} for item in clicked[:50]],
        "unknown": [],
        "interests": [{"fed_by": len(clicked[:50]), "recalled": found}] if clicked else [],
        "merged": found,
        "places": {},
        "interest_places": [],
    }


@contextmanager
def serving(service: FakeService) -> Iterator[str]:
    """Serve in a block; yield the page's address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with service.counted(f"GET {self.path}"):
                path = urlsplit(self.path).path
                name = "index.html" if path == "/" else path.removeprefix("/page/static/")
                if name in FILES:
                    file = FILES[name]
                    self._send(200, file.read_bytes(), _TYPES[file.suffix], HEADERS)
                elif path == "/page/live" and path not in service.failing:
                    self._stream()
                else:
                    self._answer(None)

        def do_POST(self) -> None:
            with service.counted(f"POST {self.path}"):
                self._answer(orjson.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, body: Any) -> None:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, value = service.answer(self.path, body, token)
            self._send(status, orjson.dumps(value), "application/json", {})

        def _send(self, status: int, content: bytes, kind: str, headers: Mapping[str, str]) -> None:
            try:
                self.send_response(status)
                for name, value in {**headers, "Content-Type": kind, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except ConnectionError:
                pass  # the page waits no longer

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                for event in service.states():
                    self.wfile.write(event)
                while service.silent:
                    time.sleep(0.05)
            except ConnectionError:
                pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
