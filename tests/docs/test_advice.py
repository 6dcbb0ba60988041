"""Error texts name only options and configuration keys that the program has which prints them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from producers.sender import SendReport
from tests.docs.test_commands import KEYS, import_program
from tests.unit.model.test_evaluate import artifact as write_artifact

CLICKS = "1,2,1404172800\n1,3,1404172801\n"
#: Click files with a fault, each with its line.
FAULTS = {
    "header": "user_id,item_id,timestamp\n" + CLICKS,
    "wrong separator": CLICKS + "1;2;3\n",
    "milliseconds": CLICKS + "1,2,1404172802000\n",
    "only milliseconds": "1,2,1404172802000\n",
    "missing value": CLICKS + f"1,{-(2**63)},1404172803\n",
    "valid format": "user_id:7 hist_item:x eval_item:3\n",
    "no user": "",
    "archive": "PK\x03\x04",
    "one click": "1,2,1404172800\n",
}
#: Programs that read click files, each with the arguments before the file.
READERS = {
    ("model.train",): ["--data"],
    ("model.evaluate",): ["--test"],
    ("model.explain",): ["--user", "1", "--artifact", "ARTIFACT", "--clicks"],
    ("producers.replay",): [],
    ("embedded", "demo"): ["--dir", "FOLDER", "--data"],
    ("benchmarks.distinctness",): ["--artifact", "ARTIFACT", "--test"],
}
#: Programs for which a file has no fault.
USABLE = {("producers.replay", "one click"), ("producers.replay", "no user")}
#: Programs with the section `data`.
TRAINING = {"model.train", "model.evaluate", "model.explain"}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "model")


def advised(text: str) -> Iterator[str]:
    """Yield the options that a text advises, without those of a whole command such as `python -m …`."""
    text = re.sub(r"python -m [^;,)]*", "", text)
    yield from re.findall(r"(?<![\w-])--[a-z][\w-]*", text)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("names", READERS, ids=" ".join)
def test_advice_about_click_files_works_in_every_program_that_reads_them(
    names: tuple[str, ...], fault: str, tmp_path: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.sender.Sender.connect", lambda _self: None)
    monkeypatch.setattr("producers.replay.send_all", lambda *_: SendReport())
    monkeypatch.setattr("embedded.stack.Stack.up", lambda *_, **__: pytest.fail("it started servers"))
    path = tmp_path / "clicks.csv"
    path.write_text(FAULTS[fault])
    module, *command = names
    arguments = [part.replace("ARTIFACT", str(artifact)).replace("FOLDER", str(tmp_path)) for part in READERS[names]]
    program = import_program(module)
    done = CliRunner().invoke(program, [*command, *arguments, str(path)])
    text = done.output
    if done.exit_code == 0:
        assert (module, fault) in USABLE
        return
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.output
    shown = CliRunner().invoke(program, [*command, "--help"]).output
    for option in advised(text):
        assert re.search(rf"{option}(?![\w-])", shown), f"{module} has no option {option}: {text}"
    for section, key in re.findall(r"\b([a-z]+)\.([a-z_]+)\b", text.replace(str(path), "")):
        if section in KEYS and section != "model":
            assert key in KEYS[section] and (module in TRAINING) == (section in ("data", "training")), text
