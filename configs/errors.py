"""The base of all errors that this project raises on purpose, and the exit statuses of all its programs.

MindstreamError        an error that reaches the command line ends the program with the exit status of its class
├── TransientError     Milvus or Kafka is unavailable      75  retried with back-off; nothing is committed meanwhile
├── FatalError         the configuration cannot work       78  the start is refused; the message names the remedy
│   └── ConfigError    a wrong or unknown setting          78  names the file, the key and the remedy
└── InputError         input that cannot be used            1  a file, an artifact, a message; names the remedy

Exit statuses of all programs; supervisors may restart after 69, 70 and 75:

0    success, or stopped as requested (worker)
1    invalid input, undelivered messages, or a failed audit
2    the command line is wrong
3    no embedded server is running (`python -m embedded env` and `status`)
69   the worker stalled: messages waited and nothing was committed (EX_UNAVAILABLE)
70   a defect of this software (EX_SOFTWARE); the log has the traceback
75   Kafka or Milvus is unavailable; a worker first retries for its retry budget. Or the worker's disk is full, or its
     local store was damaged (EX_TEMPFAIL)
78   the configuration cannot work, or Kafka or Milvus refuses this client (EX_CONFIG); the message names the remedy
130  stopped by SIGINT (tools and producers; a worker ends with 0)
143  stopped by SIGTERM (training and producers)
"""

from __future__ import annotations

EXIT_FAILURE = 1
EXIT_STALLED = 69
EXIT_DEFECT = 70
EXIT_TRANSIENT = 75
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130


class MindstreamError(Exception):
    """Base of all errors that this project raises on purpose.

    Attributes:
        exit_status: exit status of a program that this error ends.
    """

    exit_status = EXIT_FAILURE


class InputError(MindstreamError):
    """Input that cannot be used: a file, an artifact, a message. The message names the remedy."""


class TransientError(MindstreamError):
    """A server did not respond properly; the same call may succeed later.

    Attributes:
        system: "Kafka" or "Milvus".
    """

    exit_status = EXIT_TRANSIENT

    def __init__(self, system: str, detail: str) -> None:
        super().__init__(f"{system}: {detail}")
        self.system = system


class FatalError(MindstreamError):
    """The process cannot work as configured. The message names the command or the setting that fixes it."""

    exit_status = EXIT_CONFIG


class ConfigError(FatalError):
    """A setting that is wrong or unknown. The message names the file, the key and the remedy."""
