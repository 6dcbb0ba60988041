"""Clients of the baseline; each sends its next request when the one before is answered."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness.errors import BenchmarkError
from model.arrays import IntVector


@dataclass(frozen=True, slots=True)
class RequestTimes:
    """The measurements of the clients: users/s answered, and the seconds of each request."""

    rate: float
    seconds: list[float]


def send_requests(port: int, histories: Sequence[IntVector], *, clients: int, users: int, seconds: int) -> RequestTimes:
    """Send requests for recommendations for some time.

    Args:
        port: of the service on this machine.
        histories: clicked items to send, in turn.
        clients: number of concurrent clients.
        users: histories per request.
        seconds: duration.

    Raises:
        BenchmarkError: a request failed.
    """
    bodies = [
        json.dumps({"histories": [history.tolist() for history in histories[begin : begin + users]]})
        for begin in range(0, len(histories) - users + 1, users)
    ]
    taken: list[float] = []
    failures: list[str] = []
    begin = time.monotonic()

    def ask(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            number = first
            while time.monotonic() - begin < seconds and not failures:
                asked = time.monotonic()
                headers = {"Content-Type": "application/json"}
                connection.request("POST", "/recommend", bodies[number % len(bodies)], headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    failures.append(f"{answer.status}: {text[:200]!r}")
                    return
                taken.append(time.monotonic() - asked)
                number += clients
        except OSError as error:
            failures.append(repr(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise BenchmarkError(f"the baseline did not answer: {failures[0]}")
    return RequestTimes(users * len(taken) / (time.monotonic() - begin), taken)
