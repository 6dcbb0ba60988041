"""Dead letters: messages that can never be processed, kept with their original bytes and the reason."""

from __future__ import annotations

from streams.ports import DeadLetter, Output

#: Characters of the error text in the header; the value has all the rest.
_MAX_ERROR = 500


def dead_letter_output(topic: str, letter: DeadLetter, now: float) -> Output:
    """The message for the dead-letter topic: key and value as received, everything else in the headers.

    Headers, all UTF-8 text: `reason` (one of `streams.errors.Reason`), `error` (for a person), `topic`, `partition`
    and `offset` (where it came from; repeats of one message have the same), `time` (seconds since 1970).
    """
    source = letter.message
    headers = {
        "reason": letter.reason,
        "error": letter.detail[:_MAX_ERROR],
        "topic": source.topic,
        "partition": str(source.partition),
        "offset": str(source.offset),
        "time": f"{now:.3f}",
    }
    encoded = [(name, text.encode("utf-8", "backslashreplace")) for name, text in headers.items()]
    return Output(topic, source.key, source.value, headers=encoded)
