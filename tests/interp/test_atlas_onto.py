"""Atlases made from atlases: new points on an old map, maps of several spaces; and what the notes say of odd points."""

from pathlib import Path

import numpy as np
import pytest
import torch

from interp.artifacts import save_artefact
from interp.atlas.build import NEW, OLD, MapSettings, build_atlas, build_series, extend_atlas, oddities
from interp.atlas.neighbours import nearest_neighbours
from interp.atlas.sources import AtlasSource
from interp.errors import ConfigError, MismatchError, MissingError

N = 240


def source(vectors: torch.Tensor, name: str = "file:a", first: int = 0) -> AtlasSource:
    n = len(vectors)
    return AtlasSource(
        vectors=vectors,
        source=name,
        labels=[f"w{i % 6} {first + i}" for i in range(n)],
        items=np.arange(first, first + n, dtype=np.int32),
        values=np.ones(n, np.float32),
        value_name="norm",
        item_kind="index",
        parents={name: "hash"},
    )


def clusters(n: int = N, seed: int = 0, d: int = 12) -> torch.Tensor:
    centres = 2 * torch.randn(6, d, generator=torch.Generator().manual_seed(5))
    noise = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return centres[torch.arange(n) % 6] + 0.4 * noise


@pytest.mark.parametrize("max_points", [None, 150])
def test_new_points_join_a_map_that_keeps_its_places(tmp_path: Path, max_points: int | None):
    old = source(clusters())
    onto = build_atlas(old, MapSettings(n_neighbors=8, max_points=max_points), seed=3)
    onto = save_artefact(onto, tmp_path / "old", seed=3, parents=old.parents)
    new = source(clusters(30, seed=9), "file:b", first=1000)
    both = extend_atlas(new, old, onto)
    points = both.points.rows()
    n_old = onto.n_points
    assert [point.group for point in points] == [OLD] * n_old + [NEW] * 30
    np.testing.assert_array_equal(both.positions[:n_old], onto.positions)
    nearest = np.linalg.norm(both.positions[n_old:, None] - both.positions[None, :n_old], axis=2).argmin(1)
    kinds = [points[i].label.split()[0] for i in nearest]
    assert np.mean([kind == f"w{i % 6}" for i, kind in enumerate(kinds)]) > 0.9
    assert (both.settings.source, both.settings.onto) == ("file:b", "old")
    few = extend_atlas(source(clusters(30, seed=9)[:4], "file:b", first=1000), old, onto)
    np.testing.assert_array_equal(few.positions, both.positions[: n_old + 4], "a part gives what the whole gives")


def test_points_join_only_the_map_they_can(tmp_path: Path):
    old = source(clusters())
    onto = build_atlas(old, MapSettings(method="pca"))
    with pytest.raises(MissingError, match="not stored yet"):
        extend_atlas(old, old, onto)
    onto = save_artefact(onto, tmp_path / "old", parents=old.parents)
    with pytest.raises(MismatchError, match="vectors of 12 numbers"):
        extend_atlas(source(torch.ones(3, 5)), old, onto)
    with pytest.raises(MismatchError, match="made of"):
        extend_atlas(old, source(clusters(), "file:other"), onto)


def test_a_series_follows_points_through_spaces(tmp_path: Path):
    spaces = [
        clusters(),
        clusters() @ torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))[0],
    ]
    spaces.append(torch.where(torch.arange(N)[:, None] % 6 == 0, clusters(seed=2)[torch.arange(N) - 1], spaces[0]))
    names = ["first", "turned", "joined"]
    made = build_series([source(x) for x in spaces], names, MapSettings(n_neighbors=8), seed=1)
    made = save_artefact(made, tmp_path / "s", seed=1)
    frames = made.frames.arrow().to_pandas()
    assert len(frames) == 3 * N
    last = frames[frames.frame == 2]
    np.testing.assert_array_equal(made.frame_positions(2), made.positions, "the atlas itself is the last map")
    assert frames[frames.frame == 0].moved.isna().all()
    joined = (last.point % 6 == 0).to_numpy()
    assert last.moved[joined].median() > 3 * last.moved[~joined].median()
    assert made.settings.frames == ("first", "turned", "joined")
    one, two, three = made.frame_quality
    assert one.moved is one.stayed is None
    assert two.stayed > 0.9 > three.stayed
    assert all(frame.quality.recall > 0.2 for frame in made.frame_quality)
    assert made.moved_null.median <= made.moved_null.high
    assert [line.partition(",")[0] for line in made.details()[-len(names) :]] == names


def test_a_series_of_other_points_or_by_another_method_is_refused():
    one, two = source(clusters()), source(clusters(), first=7)
    with pytest.raises(ConfigError, match="same points"):
        build_series([one, two], ["a", "b"])
    with pytest.raises(ConfigError, match="umap"):
        build_series([one, one], ["a", "b"], MapSettings(method="pca"))
    with pytest.raises(ConfigError, match="two spaces"):
        build_series([one], ["a"])


def test_odd_points_are_said():
    def said(x: torch.Tensor, k: int = 5) -> str:
        return "; ".join(oddities(x, nearest_neighbours(x, k, metric="euclidean"), k))

    x = clusters(60)
    assert said(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), 8) == "", "nothing odd, nothing said"
    assert "2 of 61 vectors equal" in said(torch.cat([x, x[3:4]]))
    assert "1 vectors are zero" in said(torch.cat([x, torch.zeros(1, 12)]))
    apart = torch.cat([x, x + 1000])
    assert "connected components" in said(apart)
    assert "at most 3 neighbours each, 5 were asked for" in said(x[:4])
    assert said(x[:1]) == "1 points have at most 0 neighbours each, 5 were asked for"
