"""An artefact is a type: what is saved is read back as it was, and a damaged file is refused with its path inside."""

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jaxtyping import Float

from interp.artifacts import (
    ARRAY,
    ARRAYS,
    MANIFEST,
    Artefact,
    DocumentField,
    Measured,
    Table,
    open_artefact,
    save_artefact,
)
from interp.errors import ConfigError, CorruptError
from interp.registry import KINDS, Kind, kind_in, kinds_of, register
from interp.statistics import Interval
from interp.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Settings:
    model: str
    layers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Part:
    score: float
    spread: Measured
    interval: Interval[float]
    plane: Float[np.ndarray, "n 2"]


@dataclass(frozen=True, kw_only=True)
class Point:
    word: str
    x: float
    place: int | None


@dataclass(frozen=True, kw_only=True)
class Sample(Artefact, kind="space"):
    settings: Settings
    n: int
    best: dict[int, Part] | str
    parts: Annotated[dict[str, Part], DocumentField("parts.json")]
    points: Table[Point]
    extra: Table[Point] | None
    vectors: Annotated[Float[np.ndarray, "n d"] | None, ARRAY]

    def headline(self) -> str:
        return f"{self.n} parts"


PART = Part(score=0.5, spread=math.nan, interval=Interval(0.5, -math.inf, 1.0), plane=np.eye(2))


def sample(**changes: Any) -> Sample:
    given = {
        "settings": Settings(model="m", layers=(1, 2)),
        "n": 1,
        "best": {3: PART},
        "parts": {"L1H2": PART},
        "points": Table.of(Point, [Point(word="a", x=1.5, place=None), Point(word="b", x=2.5, place=2)]),
        "extra": None,
        "vectors": np.arange(6, dtype=np.float32).reshape(3, 2),
    }
    return Sample(**given | changes)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return save_artefact(sample(), tmp_path / "a", parents={"model:m": "0"}, seed=3).folder


def test_what_is_saved_is_read_back(stored: Path) -> None:
    found = open_artefact(Sample, stored)
    assert (found.settings, found.n, found.name, found.key) == (Settings(model="m", layers=(1, 2)), 1, "a", "spaces/a")
    assert isinstance(found.best, dict)
    assert math.isnan(found.best[3].spread)
    part = found.parts["L1H2"]
    assert part.interval.estimate == 0.5
    assert math.isnan(part.interval.low), "an end without bound is not a number"
    np.testing.assert_array_equal(part.plane, np.eye(2))
    assert found.points.rows("x > ?", 2.0) == [Point(word="b", x=2.5, place=2)]
    assert len(found.points) == 2
    np.testing.assert_array_equal(found.points.columns("x")["x"], [1.5, 2.5])
    assert found.vectors.dtype == np.float32
    assert found.extra is None
    assert (found.about.seed, found.about.parents) == (3, {"model:m": "0"})


def test_parts_are_read_when_they_are_asked_for(stored: Path) -> None:
    for file in ("parts.json", "points.parquet", ARRAYS):
        (stored / file).write_bytes(b"damaged")
    found = open_artefact(Sample, stored)
    assert found.headline() == "1 parts"
    for name, file in (("parts", "parts.json"), ("vectors", ARRAYS)):
        with pytest.raises(CorruptError, match=file):
            getattr(found, name)
    with pytest.raises(CorruptError, match=r"points\.parquet"):
        found.points.rows()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("summary", "n"), "1", r"manifest\.json, summary: n should be a valid integer, found '1'"),
        (("summary", "n"), 1.5, "n should be a valid integer"),
        (("summary", "n"), ..., "n is missing"),
        (("summary", "more"), 1, "more is not a field of it"),
        (("config", "layers"), [1, "x"], r"config: layers\.1 should be a valid integer"),
        (("summary", "best", "3", "score"), None, r"best\.3\.score should be a valid number, found None"),
        (("summary", "best", "3", "plane"), [[1, 2], [3]], r"best\.3\.plane should be lists of equal length"),
        (("summary", "best", "3", "plane"), [[1, 2, 3]], r"best\.3\.plane should be an array of another shape"),
        (("summary", "best", "3", "interval"), [1], r"best\.3\.interval\.1 is missing"),
    ],
)
def test_a_manifest_of_another_form_is_refused(stored: Path, path: tuple[str, ...], value: Any, message: str) -> None:
    raw = json.loads((stored / MANIFEST).read_text())
    place = raw
    for part in path[:-1]:
        place = place[part]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    (stored / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(CorruptError, match=message) as error:
        open_artefact(Sample, stored)
    assert str(error.value).endswith(
        "an earlier version of the workbench wrote it, or it was edited: `workbench space` makes it again"
    )


def test_a_field_that_an_earlier_version_did_not_write_has_its_default() -> None:
    from interp.forms import from_json

    @dataclass(frozen=True)
    class WithDefault:
        a: int
        b: int = 2

    assert from_json(WithDefault, {"a": 1}, "f.json") == WithDefault(1, 2)
    with pytest.raises(CorruptError, match=r"f\.json: .*a"):
        from_json(WithDefault, {"b": 1}, "f.json")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"word": ["a"], "x": [1.0]}, "column 'place' is missing"),
        ({"word": ["a"], "x": [1.0], "place": [1], "more": [2]}, "column 'more' is not known"),
        ({"word": ["a"], "x": ["1"], "place": [1]}, "column 'x' should hold double, found string"),
        ({"word": ["a"], "x": pa.array([None], pa.float64()), "place": [1]}, "column 'x' lacks values"),
    ],
)
def test_a_table_of_another_form_is_refused(stored: Path, columns: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table(columns), stored / "points.parquet")
    with pytest.raises(CorruptError, match=message):
        open_artefact(Sample, stored).points.rows()


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    wrong = Part(score=math.nan, spread=0.0, interval=Interval(0.0, 0.0, 0.0), plane=np.eye(2))
    with pytest.raises(ConfigError, match=r"best\.3\.score should be a valid number"):
        save_artefact(sample(best={3: wrong}), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "a.partial").exists()


def test_an_array_of_another_form_is_neither_written_nor_read(stored: Path) -> None:
    from safetensors.numpy import save_file

    for wrong in (np.zeros(3, np.float32), np.zeros((3, 2), np.int64)):
        with pytest.raises(ConfigError, match=r"'vectors' should be .*found .*\(3"):
            save_artefact(sample(vectors=wrong), stored.with_name("b"))
        save_file({"vectors": wrong}, stored / ARRAYS)
        with pytest.raises(CorruptError, match=rf"{ARRAYS}: the array 'vectors' should be"):
            _ = open_artefact(Sample, stored).vectors


def test_a_workspace_opens_artefacts_by_class_and_by_key(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, create=True)
    save_artefact(sample(), workspace.path("space", "a"))
    assert workspace.open(Sample, "a").n == 1
    assert [each.name for each in workspace.values(Sample)] == ["a"]
    (workspace.path("space", "a") / MANIFEST).write_text("{}")
    assert workspace.values(Sample) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_registered_class_says_its_kind(kind: str) -> None:
    found = KINDS[kind].load()
    assert issubclass(found, Artefact)
    assert found.kind == kind
    assert found.title
    assert found.made_by
    assert kind_in(KINDS[kind].folder) == kind
    assert kind in kinds_of(KINDS[kind].group or kind)


def test_a_kind_is_registered_once_under_its_name_and_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("KINDS", "FOLDERS"):
        monkeypatch.setattr(f"interp.registry.{table}", dict(getattr(sys.modules["interp.registry"], table)))
    register(KINDS["space"])  # a module that is imported again
    register(Kind("knots", "knots", "elsewhere.knots:Knots", "geometry"))
    assert kind_in("knots") == "knots"
    assert kinds_of("geometry") == ("word_geometry", "space", "space_comparison", "knots")
    for name, folder in (("space", "rooms"), ("room", "spaces")):
        with pytest.raises(ConfigError, match=r"SpaceReport has already; choose another"):
            register(Kind(name, folder, "elsewhere.rooms:Room"))


def test_a_package_registers_its_kinds_and_listing_a_workspace_imports_none_of_their_classes(tmp_path: Path) -> None:
    save_artefact(sample(), Workspace(tmp_path, create=True).path("space", "a"))
    script = """
import sys, interp
from interp.registry import KINDS
from interp.workspace import Workspace
assert KINDS and all(each.defined_in.startswith("interp.") for each in KINDS.values())
import saes
assert any(each.defined_in.startswith("saes.") for each in KINDS.values())
workspace = Workspace(sys.argv[1])
assert [each.key for each in workspace.artifacts()] == ["spaces/a"] and not workspace.partials()
print(*sorted({"torch", *(each.defined_in.partition(":")[0] for each in KINDS.values())} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")
