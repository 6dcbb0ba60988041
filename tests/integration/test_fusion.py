"""The three commands of the fusion model, end to end, with a real Milvus."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from configs.errors import EXIT_CONFIG, EXIT_FAILURE
from configs.loader import load_worker
from model.fusion import movies, recommend, train
from model.fusion.artifact import FusionArtifact
from model.fusion.film_list import read_films
from model.fusion.profiles import Profile
from model.fusion.towers import SCALE
from producers.ratings import write_movielens
from producers.synthetic_ratings import RatingsShape, generate_ratings
from streams.milvus.collection import collection_name
from streams.milvus.index import MilvusIndex

pytestmark = pytest.mark.integration

BACKENDS = ["lite", pytest.param("standalone", marks=pytest.mark.standalone)]
FILMS = 150
SMALL = ("network.id_dim=16", "network.filters=4", "training.batch_size=256", "training.epochs=2")


class Site:
    """A folder in which the commands run, as a user types them."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = folder, uri
        self.settings = load_worker(None, [f"milvus.uri={uri}", "milvus.timeout=60"], {}).milvus

    def recommend(self, *options: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(recommend.main, ["--milvus", self.uri, *options], input=stdin)

    @property
    def artifact(self) -> FusionArtifact:
        return FusionArtifact.load(self.folder / "artifacts" / "fusion")

    def index(self) -> MilvusIndex:
        return MilvusIndex(self.settings, self.artifact.model_version, self.artifact.dim, create=True)

    def films(self, profile: Profile) -> list[tuple[int, int, str, str]]:
        """Return what an exact search finds, as it is shown: rank, id, title, score."""
        artifact = self.artifact
        listed = read_films(self.folder / "movies_data.txt", artifact.vocabulary)
        scores = SCALE * artifact.films(listed.ids, listed.inputs) @ artifact.new_users([profile])[0]
        best = np.argsort(-scores)[:5]
        return [
            (rank, int(listed.ids[film]), listed.titles[int(listed.ids[film])], f"{scores[film]:.3f}")
            for rank, film in enumerate(best, 1)
        ]


@pytest.fixture(params=BACKENDS)
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    made = Site(tmp_path, request.getfixturevalue(f"milvus_{request.param}"))
    write_movielens(generate_ratings(RatingsShape(300, FILMS, 9_000), seed=1)[0], tmp_path / "ml-1m")
    settings = [word for one in SMALL for word in ("--set", one)]
    result = CliRunner().invoke(train.main, ["--data", "ml-1m", *settings])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(movies.main, ["-f", "ml-1m/movies.dat"])
    assert result.exit_code == 0, result.output
    yield made
    index = made.index()
    index.drop()
    index.close()


def rows(output: str) -> list[tuple[int, int, str, str]]:
    """Return the rows of the tables: rank, id, title, score."""
    found = re.findall(r"│\s+(\d+) │\s+(\d+) │ (.*?)\s+│\s*(-?[\d.]+) │", output)
    return [(int(rank), int(film), title, score) for rank, film, title, score in found]


def test_five_films_by_attributes_as_an_exact_search_finds_them(site: Site) -> None:
    result = site.recommend("-a", "25-34", "-g", "F", "-j", "programmer", "-i")
    assert result.exit_code == 0, result.output
    assert f"{FILMS} films of model {site.artifact.model_version} in Milvus" in result.stderr
    assert "female, 25-34, programmer" in result.stdout
    assert rows(result.stdout) == site.films(Profile(1, 2, 12))
    again = site.recommend("-a", "56", "-g", "0", "-j", "16")
    assert again.exit_code == 0, again.output
    assert rows(again.stdout) == site.films(Profile(0, 6, 16)) != rows(result.stdout)


def test_the_films_are_loaded_once_for_each_model_and_replaced_by_loading_again(site: Site) -> None:
    missing = site.recommend()
    assert missing.exit_code == EXIT_CONFIG
    assert collection_name(site.artifact.model_version) in missing.output
    assert "add -i (python -m model.fusion.recommend -i)" in missing.output
    lines = (site.folder / "movies_data.txt").read_text().splitlines(keepends=True)
    assert site.recommend("-i").exit_code == 0
    (site.folder / "movies_data.txt").write_text("".join(lines[:20]))
    assert site.recommend("-i").exit_code == 0
    index = site.index()
    assert index.describe().count == 20
    index.close()
    (site.folder / "movies_data.txt").write_text("".join(lines[:3]))
    result = site.recommend("-i")
    assert [rank for rank, *_ in rows(result.stdout)] == [1, 2, 3]


def test_lines_are_answered_one_by_one_and_wrong_ones_are_reported(site: Site) -> None:
    lines = "25-34 F programmer\n\n1 M 10\n99 M 10\nunder 18, male, K-12 student\n18 F\n"
    result = site.recommend("-i", "--batch", "-", stdin=lines)
    assert result.exit_code == EXIT_FAILURE
    assert rows(result.stdout) == [
        row for profile in (Profile(1, 2, 12), Profile(0, 0, 10), Profile(0, 0, 10)) for row in site.films(profile)
    ]
    assert "line 4: there is no age '99'; allowed" in result.stderr
    assert "line 6: expected age gender job, found '18 F'" in result.stderr
    assert re.search(r"3 answers: median [\d.]+ ms, longest [\d.]+ ms", result.stderr)
    assert "2 lines malformed" in result.stderr
