"""`workbench atlas SOURCE`: a map of vectors in the plane, with measures of how far it can be trusted."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from interp.atlas.config import MapSettings
from interp.errors import ConfigError
from interp.options import AtlasName, AtlasSourceName, Cells, HookPoint
from workbench.terminal import RunsModel, Seeded, Threaded, Writes, bar, say, settings_of, slug, wrote

if TYPE_CHECKING:
    from interp.artifacts import Manifest
    from interp.atlas.sources import AtlasSource
    from interp.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Atlas(MapSettings, Writes, Seeded, Threaded, RunsModel):
    """Map vectors to the plane so that near neighbours stay near.

    SOURCE is one of
      embeddings:MODEL, unembeddings:MODEL   tokens
      recording:NAME                         activations, with their text
      sae:NAME, encoder:NAME                 features, by decoder or encoder direction
      heads:NAME                             heads of a heads artefact, by their scores
      heads-ov:MODEL, heads-qk:MODEL         heads, by OV or QK circuit
      file:PATH                              your own vectors (.npy; .parquet: a column of lists, or of numbers)

    Two dimensions cannot preserve everything: recall says what fraction of each point's 15 nearest neighbours is still
    among its 15 nearest on the map.
    """

    source: Annotated[tyro.conf.Positional[AtlasSourceName], tyro.conf.arg(metavar="SOURCE")]
    """KIND:NAME, as above."""
    hook_point: tuple[HookPoint, ...] = ()
    """Hook points of a recording; several give one map each, aligned with each other. Default: its first."""
    then: tuple[AtlasSourceName, ...] = ()
    """Further sources of the same points (checkpoints, models): one map each, aligned with each other."""
    onto: AtlasName | None = None
    """Add the points to this atlas, whose own points stay where they are."""
    cells: Cells = "auto"
    """Labels of the cells of a grid, read from the mean vector of each: unembedding, the name of an SAE, or none. auto:
    the nearest tokens or features; for activations an SAE of their hook point where there is one, else the
    unembedding."""

    def run(self) -> None:
        from workbench.opening import open_atlas_source, with_readout

        workspace = self.open_workspace()
        self.use_threads()
        name = f"{slug(self.source)}-on-{self.onto}" if self.onto else slug(self.source)
        folder = workspace.path("atlas", self.name or name)
        self.check_free(folder)
        wanted = [(source, point) for source in (self.source, *self.then) for point in self.hook_point or (None,)]
        device = self.use_device()
        sources = [
            open_atlas_source(workspace, source, at, self.max_points, self.seed, device=device) for source, at in wanted
        ]
        sources = [with_readout(workspace, source, self.cells, device=device) for source in sources]
        names = [point or source for source, point in wanted]
        with bar("atlas", "") as progress:
            manifest = self._build(workspace, sources, names, folder, progress)
        wrote(folder, describe_map(manifest.summary))
        for frame in manifest.summary.get("frames", []):
            say(f"      {describe_frame(frame, manifest.summary['moved_null'])}")

    def _build(
        self, workspace: "Workspace", sources: list["AtlasSource"], names: list[str], folder: Path, progress: Any
    ) -> "Manifest":
        from interp.atlas.build import build_atlas, extend_atlas
        from interp.atlas.series import build_series
        from workbench.opening import open_mapped_source

        options = {"seed": self.seed, "overwrite": self.overwrite, "progress": progress}
        if self.onto:
            if len(sources) > 1:
                raise ConfigError("--onto adds one source to a map; leave out --then and further hook points")
            options.pop("seed")
            old = open_mapped_source(workspace, self.onto, device=self.device)
            return extend_atlas(sources[0], old, workspace.path("atlas", self.onto), folder, **options)
        settings = settings_of(self, MapSettings)
        if len(sources) > 1:
            return build_series(sources, names, folder, settings, **options)
        return build_atlas(sources[0], folder, settings, **options)


def describe_frame(frame: dict[str, Any], null: dict[str, float]) -> str:
    """Return a line on one map of several: recall, and how far points moved compared with maps of unchanged vectors."""
    recall = "" if frame["recall_at_15"] is None else f", preserves {frame['recall_at_15']:.0%} of nearest neighbours"
    if "moved" not in frame:
        return f"{frame['name']}{recall}"
    return (
        f"{frame['name']}{recall}; moved {frame['moved']:.2f} radii (of unchanged vectors: {null['median']:.2f}), "
        f"{frame['stayed']:.0%} of neighbours stayed"
    )


def describe_map(summary: dict) -> str:
    """Return the number of points, regions per zoom level and grids of cells, and how far the map can be trusted."""
    levels = " / ".join(f"{n:,}" for n in summary["regions_per_level"]) or "no"
    grids = f", cells {' / '.join(map(str, summary['grids']))} a side" if summary["grids"] else ""
    size = f"{summary['n_points']:,} points in {levels} regions{grids}"
    if summary["recall_at_15"] is None:
        return f"{size}; {'; '.join(summary['notes'])}"
    return (
        f"{size}; the map preserves {summary['recall_at_15']:.0%} of each point's 15 nearest neighbours "
        f"(trustworthiness {summary['trustworthiness']:.2f})"
    )
