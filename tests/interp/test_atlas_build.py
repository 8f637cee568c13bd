"""The atlas folder from end to end: planted structure survives, seeds repeat, odd inputs are said or refused."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from interp.artifacts import save_artefact, verify
from interp.atlas.build import MapSettings, build_atlas
from interp.atlas.sources import AtlasSource, embedding_source, file_source
from interp.errors import ConfigError, CorruptError, MissingError, NonFiniteError, UnknownNameError
from interp.models.adapter import token_strings, weight_hash
from interp.models.loading import load_model

N_CLUSTERS, SIZE = 5, 50


def planted_vectors() -> tuple[torch.Tensor, list[str]]:
    generator = torch.Generator().manual_seed(0)
    centres = 5 * torch.randn(N_CLUSTERS, 20, generator=generator)
    truth = torch.arange(N_CLUSTERS).repeat_interleave(SIZE)
    names = ["river", "engine", "violin", "<script>", "winter"]
    vectors = centres[truth] + torch.randn(len(truth), 20, generator=generator)
    return vectors, [f"{names[t]} {i}" for i, t in enumerate(truth.tolist())]


def planted_source(vectors: torch.Tensor, labels: list[str] | None = None) -> AtlasSource:
    n = len(vectors)
    return AtlasSource(
        vectors=vectors,
        source="file:planted",
        labels=labels or [f"p{i}" for i in range(n)],
        items=np.arange(n) + 100,
        values=np.linspace(0, 1, n),
        value_name="norm",
        item_kind="index",
    )


def build(vectors: torch.Tensor, folder: Path, labels: list[str] | None = None, *, seed: int = 0, **settings):
    made = build_atlas(planted_source(vectors, labels), MapSettings(**settings), seed=seed)
    return save_artefact(made, folder, seed=seed)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory):
    vectors, labels = planted_vectors()
    folder = tmp_path_factory.mktemp("atlas") / "planted"
    return folder, vectors, labels, build(vectors, folder, labels, seed=4)


def test_planted_clusters_are_kept_apart_and_named(planted):
    folder, _, labels, made = planted
    assert made.regions_per_level == (N_CLUSTERS,)
    assert made.whole_map_level == 0
    assert len(made.region_rows) == N_CLUSTERS
    for region in made.region_rows:
        words = {labels[i].split()[0] for i, r in enumerate(made.levels[0]) if r == region.region}
        assert len(words) == 1, "one planted cluster each"
        assert region.label.startswith(words.pop().strip("<>"))
    assert made.quality.trustworthiness > 0.85
    assert made.findings()[0].sentence.startswith("5 of 5 regions have names; 100% of the points lie in them")
    assert verify(folder) == []


def test_points_keep_their_items_values_and_hostile_labels(planted):
    folder, vectors, labels, _ = planted
    points = pq.read_table(folder / "points.parquet")
    assert points["label"].to_pylist() == labels
    assert any("<script>" in label for label in points["label"].to_pylist())
    assert points["item"].to_pylist() == list(range(100, 100 + len(vectors)))
    assert np.isfinite(points["x"].to_numpy()).all()
    assert np.isfinite(points["y"].to_numpy()).all()


def test_neighbours_on_disk_are_those_of_the_full_space(planted):
    folder, vectors, _, _ = planted
    table = pq.read_table(folder / "neighbours.parquet")
    unit = torch.nn.functional.normalize(vectors, dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-2)
    expected = cosine.topk(15)
    np.testing.assert_allclose(np.array(table["cosines"].to_pylist()), expected.values, atol=1e-5)
    assert table["neighbours"].to_pylist()[0] == expected.indices[0].tolist()


def test_neighbours_by_distance_still_show_their_cosines(planted, tmp_path: Path):
    _, vectors, labels, _ = planted
    build(vectors, tmp_path / "far", labels, metric="euclidean", method="pca")
    table = pq.read_table(tmp_path / "far" / "neighbours.parquet")
    unit = torch.nn.functional.normalize(vectors, dim=1)
    indices = torch.tensor(table["neighbours"].to_pylist())
    expected = (unit[:, None] * unit[indices]).sum(2)
    np.testing.assert_allclose(np.array(table["cosines"].to_pylist()), expected, atol=1e-5)
    nearest = torch.cdist(vectors, vectors).fill_diagonal_(torch.inf).argmin(1)
    assert indices[:, 0].tolist() == nearest.tolist()


def test_the_tables_have_the_documented_columns(planted):
    folder, *_ = planted
    columns = {name: pq.read_schema(folder / f"{name}.parquet").names for name in ("points", "regions", "neighbours")}
    assert columns["points"] == [
        "point",
        "x",
        "y",
        "label",
        "density",
        "item",
        "value",
        "kept",
        "levels",
        "context",
        "group",
    ]
    assert columns["regions"] == [
        "region", "level", "parent", "label", "size", "x", "y", "x_min", "x_max", "y_min", "y_max",
        "contour", "priority",
    ]  # fmt: skip
    assert columns["neighbours"] == ["point", "neighbours", "cosines"]
    assert not (folder / "cells.parquet").exists(), "nothing reads a file's vectors"


def test_the_same_seed_gives_the_same_map_and_another_seed_another(planted, tmp_path: Path):
    _, vectors, labels, first = planted
    again = build(vectors, tmp_path / "planted", labels, seed=4)
    other = build(vectors, tmp_path / "other", labels, seed=5)
    assert again.about.content_hash == first.about.content_hash
    assert other.about.files["points.parquet"] != first.about.files["points.parquet"]
    assert other.about.files["neighbours.parquet"] == first.about.files["neighbours.parquet"]


def test_max_points_keeps_a_seeded_sample_and_says_so(planted, tmp_path: Path):
    _, vectors, labels, _ = planted
    made = build(vectors, tmp_path / "a", labels, max_points=60, method="pca", seed=1)
    items = made.points.columns("item")["item"].tolist()
    assert made.n_points == len(items) == 60
    assert items == sorted(items)
    assert "60 of 250 points" in made.notes[0]


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_fewer_points_than_neighbours_still_make_a_map(n: int, tmp_path: Path):
    made = build(torch.randn(n, 6, generator=torch.Generator().manual_seed(n)), tmp_path / "few")
    points = pq.read_table(tmp_path / "few" / "points.parquet")
    assert len(points) == n
    assert np.isfinite(points["x"].to_numpy()).all()
    neighbours = pq.read_table(tmp_path / "few" / "neighbours.parquet")["neighbours"].to_pylist()
    assert all(len(row) == n - 1 for row in neighbours)
    assert made.quality is None
    assert any("too few" in note for note in made.notes)
    assert "too few" in made.headline()


def test_equal_vectors_share_one_place_and_the_summary_says_so(tmp_path: Path):
    made = build(torch.ones(40, 5), tmp_path / "equal")
    points = pq.read_table(tmp_path / "equal" / "points.parquet")
    assert set(points["x"].to_pylist()) == {0.0}
    assert "all vectors are equal" in made.notes[0]
    assert made.regions_per_level == ()
    assert made.whole_map_level is made.naming is None
    assert made.levels.shape == (0, 40)
    assert any("no regions" in note for note in made.notes)


def test_repeated_and_zero_vectors_are_mapped(tmp_path: Path):
    vectors = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    vectors[7] = 0
    build(vectors, tmp_path / "twice")
    assert np.isfinite(pq.read_table(tmp_path / "twice" / "points.parquet")["x"].to_numpy()).all()


def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path):
    good = torch.randn(20, 4)
    bad = good.clone()
    bad[11, 2] = torch.inf
    with pytest.raises(NonFiniteError, match="row 11"):
        build(bad, tmp_path / "a")
    with pytest.raises(ConfigError, match="at least one"):
        build(torch.zeros(0, 4), tmp_path / "a")
    with pytest.raises(ConfigError, match="as many labels"):
        build(good, tmp_path / "a", ["only one"])
    with pytest.raises(UnknownNameError, match="method"):
        build(good, tmp_path / "a", method="isomap")
    with pytest.raises(UnknownNameError, match="metric"):
        build(good, tmp_path / "a", metric="manhattan")
    for wrong in ({"n_neighbors": 1}, {"max_points": 0}):
        with pytest.raises(ConfigError):
            build(good, tmp_path / "a", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_model_s_embeddings_are_a_source(tmp_path: Path):
    model = load_model("small:attn-only-2l")
    source = embedding_source(model, "small:attn-only-2l", weight_hash=weight_hash(model))
    made = save_artefact(build_atlas(source, MapSettings(method="pca")), tmp_path / "emb")
    assert made.settings.source == "embeddings:small:attn-only-2l"
    assert source.parents == {"model:small:attn-only-2l": weight_hash(model)}
    points = pq.read_table(tmp_path / "emb" / "points.parquet")
    assert points["label"].to_pylist() == token_strings(model, list(range(model.cfg.d_vocab)))
    np.testing.assert_allclose(points["value"].to_numpy(), model.W_E.detach().norm(dim=1), rtol=1e-5)
    cells = made.cells.rows()
    assert made.grids == tuple({cell.grid for cell in cells}) == (8,)
    assert all(cell.n >= 5 and set(cell.texts) <= set(source.labels) for cell in cells)
    assert verify(tmp_path / "emb") == []


def test_files_are_a_source(tmp_path: Path):
    array = np.random.default_rng(0).normal(size=(30, 3))
    np.save(tmp_path / "v.npy", array)
    columns = {f"c{i}": array[:, i] for i in range(3)} | {"label": [f"<i>{i}</i>" for i in range(30)]}
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    for name in ("v.npy", "v.parquet"):
        torch.testing.assert_close(file_source(tmp_path / name).vectors, torch.from_numpy(array).float())
    assert file_source(tmp_path / "v.parquet").labels[3] == "<i>3</i>"
    for kind in (pa.list_(pa.float64()), pa.list_(pa.float32(), 3)):
        lists = pa.array(array.astype(np.float32).tolist(), kind)
        pq.write_table(pa.table({"id": list(range(30)), "embedding": lists}), tmp_path / "lists.parquet")
        torch.testing.assert_close(file_source(tmp_path / "lists.parquet").vectors, torch.from_numpy(array).float())
    np.save(tmp_path / "large.npy", array.astype(np.float32) * 1e30)
    assert np.isfinite(file_source(tmp_path / "large.npy").values).all()


def test_files_that_hold_no_vectors_are_refused_by_name(tmp_path: Path):
    np.save(tmp_path / "flat.npy", np.arange(5))
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array([["a", "b"]]))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "flat.npy").read_bytes()[:40])
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 not really")
    pq.write_table(pa.table({"label": ["a"]}), tmp_path / "words.parquet")
    for name, table in {
        "numbered.parquet": {"label": [1, 2]},
        "ragged.parquet": {"v": [[1.0, 2.0], [3.0]]},
        "missing.parquet": {"v": [[1.0, 2.0], None]},
        "two.parquet": {"v": [[1.0]], "w": [[2.0]]},
    }.items():
        pq.write_table(pa.table(table), tmp_path / name)
    np.savez(tmp_path / "several.npz", v=np.eye(3))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    np.save(tmp_path / "wide.npy", np.full((3, 3), 1e300))
    for name, shape in (("broken.npy", "(,"), ("immense.npy", "(1000000000000, 64)")):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        (tmp_path / name).write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    files = [*tmp_path.glob("*.npy"), *tmp_path.glob("*.parquet")]
    assert len(files) == 14
    for name in (file.name for file in files):
        with pytest.raises(CorruptError, match=name.replace(".", r"\.")):
            file_source(tmp_path / name)
    with pytest.raises(MissingError, match="no file"):
        file_source(tmp_path / "none.npy")
    (tmp_path / "v.csv").write_text("1,2")
    with pytest.raises(ConfigError, match=r"\.csv"):
        file_source(tmp_path / "v.csv")


def test_a_damaged_table_of_vectors_is_named(planted, damage_file, tmp_path: Path):
    points = Path(shutil.copy(planted[0] / "points.parquet", tmp_path))
    damage_file(points)
    with pytest.raises(CorruptError, match=r"cannot read .*points\.parquet: .*copy the file again"):
        file_source(points)
