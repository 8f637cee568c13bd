"""`workbench atlas SOURCE`: a map of vectors that says how much it keeps."""

from dataclasses import dataclass
from typing import Literal

import tyro

from workbench.options import Options, slug
from workbench.terminal import bar, wrote


@dataclass(frozen=True, kw_only=True)
class Atlas(Options):
    """Lay out vectors in the plane: near each other there means alike here, as far as two dimensions allow.

    SOURCE is embeddings:MODEL, sae:NAME (decoder directions), recording:NAME (activations) or file:PATH (.npy,
    .parquet).
    """

    source: tyro.conf.Positional[str]
    """embeddings:MODEL, sae:NAME, recording:NAME or file:PATH."""
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
    hook_point: str | None = None
    """For recording: which of its hook points. Default: its first."""

    def run(self) -> None:
        from interp.atlas.build import build_from_source
        from workbench.steps import open_atlas_source

        workspace = self.open_workspace()
        self.use_threads()
        folder = workspace.path("atlas", self.name or slug(self.source))
        source = open_atlas_source(workspace, self.source, self.hook_point, self.max_points, self.seed)
        with bar("atlas", "") as progress:
            manifest = build_from_source(
                source,
                folder,
                metric=self.metric,
                method=self.method,
                n_neighbors=self.n_neighbors,
                min_dist=self.min_dist,
                max_points=self.max_points,
                seed=self.seed,
                overwrite=self.overwrite,
                progress=progress,
            )
        wrote(folder, describe_map(manifest.summary))


def describe_map(summary: dict) -> str:
    """How many points, how many clusters, and how far the map can be trusted."""
    size = f"{summary['n_points']:,} points in {summary['n_clusters']:,} clusters"
    if summary["recall_at_15"] is None:
        return f"{size}; {'; '.join(summary['notes'])}"
    return (
        f"{size}; the map keeps {summary['recall_at_15']:.0%} of each point's 15 true neighbours "
        f"(trustworthiness {summary['trustworthiness']:.2f})"
    )
