"""An atlas of several spaces: one map per layer or checkpoint, in one frame, as steps of a slider.

The folder is an atlas of the last space (its regions, its neighbours), with the table `frames` beside it: where every
point is on every map, how much each map keeps, how far the point moved and how many of its neighbours stayed. So the
regions that there are in the end can be followed back to where they come from.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from interp.artifacts import Draft, Manifest, write_table
from interp.atlas.aligned import STRENGTH, AlignedMaps, check_spaces, lay_out_aligned
from interp.atlas.build import MapSettings, check_source, choose_points, finish, search, stage
from interp.atlas.layout import Layout
from interp.atlas.quality import Quality, kept_neighbours, measure_quality
from interp.atlas.sources import AtlasSource
from interp.errors import ConfigError
from interp.progress import Progress
from interp.runtime import make_generator


def build_series(
    sources: list[AtlasSource],
    names: list[str],
    folder: Path,
    settings: MapSettings | None = None,
    *,
    strength: float = STRENGTH,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Maps of `sources`, which hold the same points in the same order, called `names`.

    `strength` holds each map to the one before (`aligned`). Raises `ConfigError` when the sources hold other points, or
    the method is not `umap`.
    """
    settings = settings or MapSettings()
    if settings.method != "umap":
        raise ConfigError(f"maps in one frame are laid out by umap, not {settings.method}")
    if any(source.labels != sources[0].labels for source in sources):
        raise ConfigError("maps in one frame show the same points in the same order; these sources hold different ones")
    for source in sources:
        check_source(source)
    check_spaces([source.vectors for source in sources], names, strength)
    config = {**asdict(settings), "source": sources[-1].source, "frames": names, "strength": strength}
    draft = Draft.open(folder, kind="atlas", config=config, seed=seed, overwrite=overwrite)
    points = choose_points(len(sources[0].vectors), settings.max_points, seed)
    chosen = [source.chosen(points) for source in sources]
    found = [search(source.vectors, settings, seed, progress) for source in chosen]
    maps = lay_out_aligned(
        [source.vectors for source in chosen],
        [one.neighbours for one in found],
        min_dist=settings.min_dist,
        strength=strength,
        seed=seed,
        progress=stage(progress, "layout"),
    )
    kept = [kept_neighbours(one.neighbours.indices, at) for one, at in zip(found, maps.positions, strict=True)]
    write_frames(draft.path, maps, kept)
    frames = summarise_frames(names, chosen, maps, settings, seed)
    last = Layout(maps.positions[-1], "umap", f"one of {len(names)} maps in one frame: {', '.join(names)}")
    parents = {name: digest for source in sources for name, digest in source.parents.items()}
    return finish(
        draft,
        chosen[-1],
        found[-1],
        last,
        settings,
        seed,
        n_given=len(sources[0].vectors),
        parents=parents,
        more=frames,
    )


def write_frames(folder: Path, maps: AlignedMaps, kept: list[np.ndarray]) -> None:
    """`frames.parquet`: `frame, point, x, y, kept, moved, stayed`; the last two are null on the first frame."""
    import pyarrow as pa

    n_frames, n = len(maps.positions), len(maps.positions[0])
    nothing = np.full((1, n), np.nan, np.float32)
    x, y = np.concatenate(maps.positions).T
    columns = {
        "frame": pa.array(np.repeat(np.arange(n_frames), n), pa.int32()),
        "point": pa.array(np.tile(np.arange(n), n_frames), pa.int32()),
        "x": pa.array(x, pa.float32()),
        "y": pa.array(y, pa.float32()),
        "kept": pa.array(np.concatenate(kept), pa.float32()),
    }
    for name, steps in (("moved", maps.moved), ("stayed", maps.stayed)):
        columns[name] = pa.array(np.concatenate([nothing, steps]).ravel(), pa.float32(), from_pandas=True)
    write_table(folder / "frames.parquet", pa.table(columns))


def summarise_frames(
    names: list[str], sources: list[AtlasSource], maps: AlignedMaps, settings: MapSettings, seed: int
) -> dict[str, Any]:
    """Per frame what the map keeps, how far points moved (median), and the null of that; for the manifest."""
    frames = []
    for at, (name, source, positions) in enumerate(zip(names, sources, maps.positions, strict=True)):
        generator = make_generator(seed, "quality")
        quality = measure_quality(source.vectors, positions, metric=settings.metric, generator=generator)
        frame: dict[str, Any] = {"name": name, **_quality(quality)}
        if at:
            frame |= {
                "moved": round(float(np.median(maps.moved[at - 1])), 4),
                "stayed": round(float(maps.stayed[at - 1].mean()), 4),
            }
        frames.append(frame)
    null = {"median": round(float(np.median(maps.null)), 4), "high": round(float(np.quantile(maps.null, 0.95)), 4)}
    return {"frames": frames, "moved_null": null}


def _quality(quality: Quality | None) -> dict[str, Any]:
    if quality is None:
        return {"trustworthiness": None, "recall_at_15": None}
    return {"trustworthiness": round(quality.trustworthiness, 4), "recall_at_15": round(quality.recall, 4)}
