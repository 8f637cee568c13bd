"""A map of vectors as an artefact: points and their regions, true neighbours, the quality of the map.

`interp.atlas.build` makes one map, or several in one frame. Torch-free.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal, get_args
from urllib.parse import urlencode

import numpy as np
from jaxtyping import Float32, Int32

from interp.artifacts import Artefact, Measured, Table
from interp.errors import ConfigError, CorruptError, UnknownNameError
from interp.options import BASIC
from interp.results import Record, Result
from interp.view import Dots, Facts, Finding, Rows, View

if TYPE_CHECKING:
    import pyarrow as pa

Metric = Literal["cosine", "euclidean"]
Method = Literal["umap", "umap-learn", "tsne", "pca"]
Search = Literal["exact", "approximate"]
"""How nearest neighbours are found."""
METRICS: tuple[Metric, ...] = get_args(Metric)
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, kw_only=True)
class MapSettings:
    """Settings of a map of vectors."""

    metric: Metric = "cosine"
    """Similarity of two vectors."""
    method: Annotated[Method, BASIC] = "umap"
    """umap: our own implementation, on all cores, the same result on any number of them; umap-learn: the reference, on
    one core; tsne: preserves more near neighbours and takes far longer; pca: two principal components."""
    n_neighbors: Annotated[int, BASIC] = 15
    """Nearest neighbours in the graph that is laid out: fewer show local detail, more show the large structure."""
    min_dist: float = 0.1
    """Smallest distance between points, in map units."""
    max_points: int | None = None
    """Map a random sample of at most this many points. Default: all (of a recording: 20,000)."""

    def __post_init__(self) -> None:
        for what, known in (("method", METHODS), ("metric", METRICS)):
            if getattr(self, what) not in known:
                raise UnknownNameError(what, getattr(self, what), known)
        if self.n_neighbors < 2:
            raise ConfigError(f"n_neighbors must be at least 2, got {self.n_neighbors}")
        if self.max_points is not None and self.max_points < 1:
            raise ConfigError(f"max_points must be at least 1, got {self.max_points}; leave it out to map all")


NONE = -1
"""Number of no region."""
SUITS_THE_MAP = 20
"""Number of regions that suits a view of the whole map; the level with the nearest number is shown first."""
REST = "nearly all points"
"""Label of a region that is the background, not a cluster."""

ItemKind = Literal["token", "feature", "row", "head", "index"]


@dataclass(frozen=True, kw_only=True)
class VectorMapSettings(MapSettings):
    """Settings that determine a map."""

    source: str
    """`embeddings:MODEL`, `recording:NAME`, `sae:NAME`, `file:PATH` ...; of several maps that of the last."""
    hook_point: str | None = None
    """Hook point at which the vectors were recorded."""
    onto: str | None = None
    """Map whose points stayed where they were while others were added."""
    frames: tuple[str, ...] = ()
    """Names of several maps in one frame; none for a single map."""
    strength: float | None = None
    """Strength of the alignment of several maps, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class MapPoint:
    """One vector on the map."""

    point: int
    """Number of the row."""
    x: float
    y: float
    label: str
    density: float
    """Rank of the local density on the map, 0 to 1."""
    item: int
    """Token id, feature number, recording row, head number or index."""
    value: float
    """Quantity named by `VectorMap.value_name`."""
    kept: float
    """Fraction of its true neighbours that are among the same number of nearest ones on the map."""
    levels: list[int]
    """Region on each zoom level, the coarsest first; -1 for none."""
    context: str | None
    """Text around the token of an activation."""
    group: str | None


@dataclass(frozen=True, kw_only=True)
class Region:
    """One region: a dense part of the map."""

    region: int
    """Number over all levels: by level, then by descending size."""
    level: int
    """0 is the coarsest."""
    parent: int
    """Enclosing region of the next coarser level; -1 for none."""
    label: str
    """Empty where no term is more over-represented than shuffled labels give."""
    size: int
    """Number of points."""
    x: float
    """With `y` the anchor of the label: the densest point."""
    y: float
    x_min: float
    x_max: float
    y_min: float
    y_max: float
    contour: list[float]
    """x, y, x, y, ... of its largest outline, closed."""
    priority: float
    """The label with the higher priority is shown where two overlap: coarser levels first, then larger regions."""


@dataclass(frozen=True, kw_only=True)
class Neighbourhood:
    """Nearest neighbours of one point in the full space, the nearest first."""

    point: int
    neighbours: list[int]
    cosines: list[float]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a grid over the map, with its mean vector read as texts."""

    grid: int
    """Cells along the longer side."""
    column: int
    row: int
    """With `column` the position of the cell, from the lower left."""
    x: float
    """With `y` the middle of the cell."""
    y: float
    size: float
    """Drawn side, 0 to 1, by the number of points."""
    n: int
    texts: list[str]
    weights: list[float]
    coherence: float
    """1: all vectors of the cell are equal, 0: as different as any of the map."""
    source: str
    """Readout that gave the texts."""


@dataclass(frozen=True, kw_only=True)
class FramePoint:
    """One point on one of several maps."""

    frame: int
    point: int
    x: float
    y: float
    kept: float
    moved: Measured
    """Displacement from the map before; 1 is the radius of the maps."""
    stayed: Measured
    """Fraction of its neighbours in the full space before that are still its neighbours."""


@dataclass(frozen=True)
class Quality(Result):
    """Agreement between map and full space, for a sample of points against all points."""

    trustworthiness: float
    """1: neighbours on the map are neighbours in the full space; 0.5 is about chance (Venna & Kaski 2001)"""
    continuity: float
    """1: neighbours in the full space are neighbours on the map; 0.5 is about chance (the same, spaces exchanged)"""
    recall: float
    """fraction of the `k` true neighbours that are among the `k` neighbours on the map; 1 all, 0 none"""
    triplets: float
    """fraction of random triplets with the same nearer pair in both; 1 all, 0.5 chance (Wang et al. 2021, PaCMAP)"""
    k: int
    sample: int
    """points measured; neighbours and ranks are always over all points"""

    def view(self) -> View:
        yield f"Quality of a map, {self.sample:,} points against all (1 is faithful; chance: 0.5, 0.5, about 0, 0.5)"


@dataclass(frozen=True, kw_only=True)
class Naming:
    """Regions with a label, and what shuffled labels give."""

    per_level: tuple[int, ...]
    """Named regions of each level."""
    when_shuffled: float
    """Mean number of regions that a map with shuffled labels names."""
    shuffles: int
    bounds: dict[str, float]
    """Evidence in nats that a term must exceed, by kind of term: `words`, `forms`, `contexts`."""

    @property
    def named(self) -> int:
        """Number of named regions."""
        return sum(self.per_level)


@dataclass(frozen=True, kw_only=True)
class FrameQuality:
    """One of several maps in one frame."""

    quality: Quality | None
    moved: float | None
    """Median displacement from the map before; None for the first."""
    stayed: float | None
    """Mean fraction of neighbours in the full space that stayed."""


@dataclass(frozen=True, kw_only=True)
class StillMovement:
    """Displacement of points when nothing changed: the first space after itself."""

    median: float
    high: float
    """Its 95 % quantile."""


@dataclass(frozen=True, kw_only=True)
class VectorMap(Artefact, kind="atlas", title="Map"):
    """A map of vectors in the plane."""

    settings: VectorMapSettings
    n_points: int
    n_given: int
    """Vectors of the source, of which the points are a sample where there are fewer."""
    d: int
    """Dimensions of the full space."""
    layout: Method
    """Method that was used."""
    quality: Quality | None
    """None where there are too few points to measure."""
    search: Search
    """How neighbours were found."""
    search_recall: float
    """Fraction of the true neighbours in the lists."""
    regions_per_level: tuple[int, ...]
    """The coarsest level first."""
    naming: Naming | None
    """None without regions."""
    outside: float
    """Fraction of points in no region of the level that suits a view of the whole map."""
    grids: tuple[int, ...]
    value_name: str
    item_kind: ItemKind
    features: str | None
    """Features artefact to which a point leads."""
    notes: tuple[str, ...]
    """Every departure from the request, and every caveat."""
    frame_quality: tuple[FrameQuality, ...]
    """One for each of `settings.frames`."""
    moved_null: StillMovement | None
    points: Table[MapPoint]
    """By number. Of several maps, those of the last."""
    regions: Table[Region]
    neighbours: Table[Neighbourhood]
    cells: Table[Cell] | None
    """None where no readout turns the vectors into texts."""
    frames: Table[FramePoint] | None
    """Points on each of several maps; None for a single map."""

    @property
    def whole_map_level(self) -> int | None:
        """Level that suits a view of the whole map; None without regions."""
        return whole_map_level(self.regions_per_level)

    @property
    def n_regions(self) -> int:
        """Number of regions on all levels."""
        return sum(self.regions_per_level)

    @property
    def trust(self) -> float:
        """Trustworthiness, by which maps of any size are compared (recall falls with their size); -1 if unmeasured."""
        return -1.0 if self.quality is None else self.quality.trustworthiness

    @cached_property
    def positions(self) -> Float32[np.ndarray, "n 2"]:
        """Positions of the points on the map."""
        return _pairs(self.points.columns("x", "y"))

    @cached_property
    def levels(self) -> Int32[np.ndarray, "n_levels n"]:
        """Region of every point on every zoom level, -1 for none. Raises `CorruptError`."""
        lists = self.points.query("select levels from t")["levels"].combine_chunks()
        return levels_of(lists, len(self.regions_per_level), self.points.path)

    @cached_property
    def region_rows(self) -> list[Region]:
        """All regions by number (a map has hundreds)."""
        return self.regions.rows(order="region")

    def frame_positions(self, frame: int) -> Float32[np.ndarray, "n 2"]:
        """Return the positions of the points on one of several maps."""
        assert self.frames is not None, "a map of one space"
        rows = self.frames.query("select x, y from t where frame = ? order by point", frame)
        return _pairs({name: rows[name].to_numpy() for name in ("x", "y")})

    def to_records(self) -> list[Record]:
        """Return one row per region: `region, level, parent, label, size, x, y`."""
        names = ("region", "level", "parent", "label", "size", "x", "y")
        return [{name: getattr(row, name) for name in names} for row in self.region_rows]

    def view(self) -> View:
        yield self._sentence()
        level = self.whole_map_level
        trust = [] if self.quality is None else [("trustworthiness", f"{self.quality.trustworthiness:.3g}")]
        regions = 0 if level is None else self.regions_per_level[level]
        yield Facts(("regions", f"{regions:,}"), *trust, ("source", self.settings.source))
        levels = " / ".join(f"{n:,}" for n in self.regions_per_level) or "none"
        cells = f"; cells {' / '.join(map(str, self.grids))} a side" if self.grids else ""
        yield from [f"regions: {levels}{cells}", *self.notes]
        for name, frame in zip(self.settings.frames, self.frame_quality, strict=True):
            recall = "" if frame.quality is None else f", preserves {frame.quality.recall:.0%} of nearest neighbours"
            moved = ""
            if frame.moved is not None and frame.stayed is not None and self.moved_null is not None:
                moved = (
                    f"; moved {frame.moved:.2f} radii (of unchanged vectors: {self.moved_null.median:.2f}), "
                    f"{frame.stayed:.0%} of neighbours stayed"
                )
            yield f"{name}{recall}{moved}"
        yield Rows(self._rows)
        naming = self.naming
        if naming is None or naming.named <= max(1, naming.when_shuffled):
            return
        largest = max((row for row in self.region_rows if row.label), key=lambda row: (tells(row.label), row.size))
        sentence = f"{self.naming_sentence()[:-1]}, such as “{' '.join(largest.label.split())[:60]}”."
        yield Finding(
            kind="map",
            title="A map with named regions",
            sentence=sentence,
            value=naming.named,
            null=naming.when_shuffled,
            about="regions with a name; null: shuffled labels",
            href=f"?{urlencode({'selection': f'region:{largest.region}'})}",
            proof="Open the map",
            dots=Dots(
                x=tuple(row.x for row in self.region_rows), y=tuple(row.y for row in self.region_rows), alike=True
            ),
        )

    def _sentence(self) -> str:
        """Return the numbers of points and regions, and how far the map can be trusted."""
        what, n = "point" if self.item_kind == "index" else self.item_kind, sum(self.regions_per_level)
        size = f"{self.n_points:,} {what}s" + (f" in {n:,} region{'s' * (n > 1)}" if n else "")
        if self.quality is None:
            return f"{size}, too few to judge the map"
        chance = min(100.0, 1500 / (self.n_points - 1))
        kept = f"{self.quality.recall:.0%} of each point's 15 nearest neighbours"
        return f"{size}; the map preserves {kept} (by chance {chance:.2g}%)"

    def _rows(self) -> list[Record]:
        """Return the largest regions of the level that suits a view of the whole map."""
        rows = [row for row in self.to_records() if row["level"] == self.whole_map_level]
        return sorted(rows, key=lambda row: -row["size"])[:12]

    def naming_sentence(self) -> str:
        """Return how many points of the whole map lie in regions with a name, and the number of names; "" for none."""
        level = self.whole_map_level
        if self.naming is None or level is None:
            return ""
        what = {"token": "words", "index": "points"}.get(self.item_kind, f"{self.item_kind}s")
        inside = sum(row.size for row in self.region_rows if row.level == level and row.label) / self.n_points
        n, named = self.naming.named, self.n_regions
        if n and inside < 0.5:
            return f"Most {what} lie in unnamed regions; {n:,} small ones have names."
        return f"{n:,} of {named:,} regions have names; {inside:.0%} of the {what} lie in them."


def tells(label: str) -> bool:
    """Return True for a region's name that is three or fewer whole words, and no form such as `Capitalised`."""
    words = label.split("; ")[0].split(", ")
    return ":" not in label and all(len(word) > 3 and word.isalpha() for word in words)


def levels_of(lists: "pa.ListArray", n_levels: int, where: object) -> Int32[np.ndarray, "n_levels n"]:
    """Return the column `levels` as an array. Raises `CorruptError` where a point has another number of levels."""
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    if len(flat) != len(lists) * n_levels:
        raise CorruptError(f"{where}: column 'levels' should hold {n_levels} regions per point; it was edited")
    return flat.reshape(len(lists), n_levels).T.astype(np.int32)


def whole_map_level(per_level: tuple[int, ...]) -> int | None:
    """Return the level whose number of regions suits a view of the whole map; None without regions."""
    if not per_level:
        return None
    return int(np.abs(np.log(np.array(per_level) / SUITS_THE_MAP)).argmin())


def _pairs(columns: dict[str, np.ndarray]) -> Float32[np.ndarray, "n 2"]:
    return np.column_stack([columns["x"], columns["y"]]).astype(np.float32)
