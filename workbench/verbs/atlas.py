"""`workbench atlas SOURCE`: a map of vectors in the plane, with measures of how far it can be trusted."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from interp.atlas.vector_map import MapSettings, VectorMap
from interp.errors import ConfigError
from interp.options import Argument, AtlasName, AtlasSourceName, Cells, HookPoint
from workbench.analysis import Analysis, AnalysisRun
from workbench.terminal import Heading, RunsModel, Seeded, Threaded, settings_of, slug

HEADING = Heading.MAPS


@dataclass(frozen=True, kw_only=True)
class Atlas(MapSettings, Seeded, Threaded, RunsModel, Analysis["VectorMap"]):
    """Map vectors to the plane so that near neighbours stay near.

    SOURCE is one of
      embeddings:MODEL, unembeddings:MODEL   tokens
      recording:NAME                         activations, with their text
      features:NAME                          features, by the words that they read and say
      sae:NAME, encoder:NAME                 features, by decoder or encoder direction
      heads:NAME                             heads of a heads artefact, by their scores
      heads-ov:MODEL, heads-qk:MODEL         heads, by OV or QK circuit
      file:PATH                              your own vectors (.npy; .parquet: a column of lists, or of numbers)

    Two dimensions cannot preserve everything. Recall is the fraction of each point's 15 nearest neighbours that are
    still among its 15 nearest on the map.
    """

    makes: ClassVar[str] = "atlas"

    source: Annotated[AtlasSourceName, Argument("SOURCE")]
    """KIND:NAME, as above."""
    hook_point: tuple[HookPoint, ...] = ()
    """Hook points of a recording; several give one map each, aligned with each other. Default: its first."""
    then: tuple[AtlasSourceName, ...] = ()
    """Further sources of the same points (checkpoints, models): one map each, aligned with each other."""
    onto: AtlasName | None = None
    """Add the points to this atlas, whose own points stay where they are."""
    cells: Cells = "auto"
    """Labels of grid cells, read from each cell's mean vector: unembedding, the name of an SAE, or none. auto: the
    nearest tokens or features; for activations an SAE of their hook point if one exists, else the unembedding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.onto and (self.then or len(self.hook_point) > 1):
            raise ConfigError("--onto adds one source to a map; leave out --then and further hook points")

    def default_name(self) -> str:
        return f"{slug(self.source)}-on-{self.onto}" if self.onto else slug(self.source)

    def measure(self, run: AnalysisRun) -> VectorMap:
        from interp.atlas.build import build_atlas, build_series, extend_atlas
        from workbench.atlas_sources import open_atlas_source, open_mapped_source, with_readout

        onto = run.open(VectorMap, self.onto) if self.onto else None
        spaces = [(source, point) for source in (self.source, *self.then) for point in self.hook_point or (None,)]
        sources = [open_atlas_source(run, source, at, self.max_points, self.seed) for source, at in spaces]
        sources = [with_readout(run, source, self.cells) for source in sources]
        old = open_mapped_source(run, onto) if onto else None
        for source in (*sources, *filter(None, [old])):
            run.parents |= source.parents
        settings = settings_of(self, MapSettings)
        with run.progress("atlas") as progress:
            if onto and old:
                run.seed = onto.about.seed
                return extend_atlas(sources[0], old, onto, progress=progress)
            if len(sources) > 1:
                names = [point or source for source, point in spaces]
                return build_series(sources, names, settings, seed=self.seed, progress=progress)
            return build_atlas(sources[0], settings, seed=self.seed, progress=progress)
