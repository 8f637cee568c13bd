"""`workbench atlas SOURCE`: a map of vectors that says how much it keeps."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from interp.errors import ConfigError
from workbench.terminal import Options, bar, say, slug, wrote

if TYPE_CHECKING:
    from interp.artifacts import Manifest
    from interp.atlas.sources import AtlasSource
    from interp.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Atlas(Options):
    """Lay out vectors in the plane: near each other there means alike here, as far as two dimensions allow.

    SOURCE is one of
      embeddings:MODEL, unembeddings:MODEL   tokens
      recording:NAME                         activations, with the text they come from
      sae:NAME, encoder:NAME                 features, by what they write or what they read
      heads:NAME                             heads of a heads artefact, by their scores
      heads-ov:MODEL, heads-qk:MODEL         heads, by what they move or what they look for
      file:PATH                              your own vectors (.npy; .parquet: a column of lists, or of numbers)
    """

    source: tyro.conf.Positional[str]
    """KIND:NAME, as above."""
    metric: Literal["cosine", "euclidean"] = "cosine"
    """How alike is measured."""
    method: Literal["umap", "umap-learn", "tsne", "pca"] = "umap"
    """umap: ours, on all cores and the same for any number of them; umap-learn: the reference, on one; tsne: keeps more
    near neighbours, takes far longer; pca: two principal components."""
    n_neighbors: int = 15
    """Neighbours that shape the map: fewer shows detail, more shows the large view."""
    min_dist: float = 0.1
    """How tightly points may lie."""
    max_points: int | None = None
    """Map a seeded sample of at most so many."""
    hook_point: tuple[str, ...] = ()
    """For recording: which of its hook points; several make one map each, in one frame. Default: its first."""
    then: tuple[str, ...] = ()
    """Further sources of the same points (checkpoints, models): one map each, in one frame."""
    onto: str | None = None
    """Place the points on this atlas instead, which keeps its places."""
    cells: str = "auto"
    """What says in words what the average of each cell of a grid is: unembedding, the name of an SAE, or none. auto:
    of tokens and features the nearest ones, of activations an SAE of theirs when there is one, else the unembedding."""

    def run(self) -> None:
        from workbench.opening import open_atlas_source, with_readout

        workspace = self.open_workspace()
        self.use_threads()
        name = f"{slug(self.source)}-on-{self.onto}" if self.onto else slug(self.source)
        folder = workspace.path("atlas", self.name or name)
        wanted = [(source, point) for source in (self.source, *self.then) for point in self.hook_point or (None,)]
        sources = [open_atlas_source(workspace, source, at, self.max_points, self.seed) for source, at in wanted]
        sources = [with_readout(workspace, source, self.cells) for source in sources]
        names = [point or source for source, point in wanted]
        with bar("atlas", "") as progress:
            manifest = self._build(workspace, sources, names, folder, progress)
        wrote(folder, describe_map(manifest.summary))
        for frame in manifest.summary.get("frames", []):
            say(f"      {describe_frame(frame, manifest.summary['moved_null'])}")

    def _build(
        self, workspace: "Workspace", sources: list["AtlasSource"], names: list[str], folder: Path, progress: Any
    ) -> "Manifest":
        from interp.atlas.build import MapSettings, build_atlas, extend_atlas
        from interp.atlas.series import build_series
        from workbench.opening import open_mapped_source

        told = {"seed": self.seed, "overwrite": self.overwrite, "progress": progress}
        if self.onto:
            if len(sources) > 1:
                raise ConfigError("--onto places one source; leave out --then and further hook points")
            told.pop("seed")
            old = open_mapped_source(workspace, self.onto)
            return extend_atlas(sources[0], old, workspace.path("atlas", self.onto), folder, **told)
        settings = MapSettings(
            metric=self.metric,
            method=self.method,
            n_neighbors=self.n_neighbors,
            min_dist=self.min_dist,
            max_points=self.max_points,
        )
        if len(sources) > 1:
            return build_series(sources, names, folder, settings, **told)
        return build_atlas(sources[0], folder, settings, **told)


def describe_frame(frame: dict[str, Any], null: dict[str, float]) -> str:
    """One map of several: what it keeps and how much moved, beside what moves when nothing changes."""
    kept = "" if frame["recall_at_15"] is None else f", keeps {frame['recall_at_15']:.0%} of true neighbours"
    if "moved" not in frame:
        return f"{frame['name']}{kept}"
    return (
        f"{frame['name']}{kept}; moved {frame['moved']:.2f} radii (nothing changed: {null['median']:.2f}), "
        f"{frame['stayed']:.0%} of neighbours stayed"
    )


def describe_map(summary: dict) -> str:
    """How many points, regions per zoom level and grids of cells, and how far the map can be trusted."""
    levels = " / ".join(f"{n:,}" for n in summary["regions_per_level"]) or "no"
    grids = f", cells {' / '.join(map(str, summary['grids']))} a side" if summary["grids"] else ""
    size = f"{summary['n_points']:,} points in {levels} regions{grids}"
    if summary["recall_at_15"] is None:
        return f"{size}; {'; '.join(summary['notes'])}"
    return (
        f"{size}; the map keeps {summary['recall_at_15']:.0%} of each point's 15 true neighbours "
        f"(trustworthiness {summary['trustworthiness']:.2f})"
    )
