"""The vectors that `workbench atlas SOURCE` maps, by the name of their source, and the labels of the map's cells."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from interp.errors import ConfigError, MismatchError, UnknownNameError
from saes.acts.run import Run
from saes.features.schema import features_of_sae
from saes.training.stored import StoredSAE

if TYPE_CHECKING:
    from interp.atlas.cells import Readout
    from interp.atlas.sources import AtlasSource
    from interp.atlas.vector_map import VectorMap

ATLAS_SOURCES = {
    **dict.fromkeys(("embeddings", "unembeddings", "heads-ov", "heads-qk"), "model"),
    **dict.fromkeys(("sae", "encoder"), "sae"),
    "recording": "recording",
    "features": "features",
    "heads": "heads",
    "file": "file",
}
"""What the name of an atlas source names, by its kind."""
MOST_ROWS = 20_000
"""Rows of a recording on a map, where no number is asked for."""


def open_atlas_source(
    run: Run, source: str, hook_point: str | None, max_points: int | None, seed: int
) -> "AtlasSource":
    """Return the vectors that `KIND:NAME` names (`workbench atlas --help` lists the kinds)."""
    kind, _, name = source.partition(":")
    if kind not in ATLAS_SOURCES or not name:
        raise UnknownNameError("atlas source", source, [f"{prefix}:NAME" for prefix in ATLAS_SOURCES])
    from interp.atlas import sources

    if kind == "file":
        return sources.file_source(name)
    if kind == "heads":
        run.manifest("heads", name)  # lists the nearest names when it is not there
        return sources.head_score_source(run.workspace.path("heads", name))
    if kind == "recording":
        recording = run.recording(name)
        model, most = run.recorded_model(recording), max_points or MOST_ROWS
        return sources.recording_source(recording, model, hook_point=hook_point, max_points=most, seed=seed)
    if kind == "features":
        from saes.features.profiles import words_source

        return words_source(run.workspace, name)
    if kind in ("sae", "encoder"):
        from saes.features.sources import sae_source

        return sae_source(
            run.sae(name).cpu(),
            name,
            side="decoder" if kind == "sae" else "encoder",
            features_folder=features_of_sae(run.workspace, name),
            parents={f"saes/{name}": run.manifest("sae", name).content_hash},
        )
    openers = {
        "embeddings": sources.embedding_source,
        "unembeddings": sources.unembedding_source,
        "heads-ov": partial(sources.head_circuit_source, circuit="ov"),
        "heads-qk": partial(sources.head_circuit_source, circuit="qk"),
    }
    return openers[kind](run.model(name), name, weight_hash=run.weight_hash(name))


def open_mapped_source(run: Run, atlas: "VectorMap") -> "AtlasSource":
    """Return the vectors that an atlas of this workspace was made from."""
    of = atlas.settings
    if of.onto or of.frames:
        raise ConfigError(f"{atlas.name} was itself made from other maps; add points to a map of one source")
    return open_atlas_source(run, of.source, of.hook_point, of.max_points, atlas.about.seed or 0)


AUTO, NONE, UNEMBEDDING = "auto", "none", "unembedding"


def with_readout(run: Run, source: "AtlasSource", cells: str = AUTO) -> "AtlasSource":
    """Return the source with its cells labelled by `auto`, `none`, `unembedding` or an SAE of the workspace.

    Raises `ConfigError` where that cannot read the vectors, `MismatchError` for an SAE of another hook point,
    `UnknownNameError` for an unknown SAE.
    """
    kind, _, name = source.source.partition(":")
    if cells == NONE:
        return replace(source, readout=None)
    if cells == UNEMBEDDING:
        return replace(source, readout=_unembedding(run, source, kind, name))
    if cells == AUTO:
        return _by_own_sae(run, source, name) if kind == "recording" else source
    sae = run.workspace.open(StoredSAE, cells)
    if kind != "recording":
        raise ConfigError(
            f"an SAE reads activations, and {source.source} has none; map a recording, or leave --cells out"
        )
    if sae.hook_point != source.hook_point:
        raise MismatchError(
            f"the SAE {cells} reads {sae.hook_point}, the map shows {source.hook_point}; "
            "give --hook-point or another SAE"
        )
    return _by_sae(run, source, sae)


def _by_own_sae(run: Run, source: "AtlasSource", recording: str) -> "AtlasSource":
    """Label cells by an SAE of this recording and hook point, if possible one with a features artefact."""
    workspace = run.workspace
    made = [workspace.open(StoredSAE, m.name) for m in workspace.children("recording", recording) if m.kind == "sae"]
    fitting = [sae for sae in made if sae.hook_point == source.hook_point]
    if not fitting:
        return source
    described = min(fitting, key=lambda sae: (features_of_sae(workspace, sae.name) is None, sae.name))
    return _by_sae(run, source, described)


def _by_sae(run: Run, source: "AtlasSource", sae: StoredSAE) -> "AtlasSource":
    from saes.features.sources import dictionary_readout

    readout = dictionary_readout(run.sae(sae.name).cpu(), sae.name, features_of_sae(run.workspace, sae.name))
    return replace(source, readout=readout, parents={**source.parents, sae.key: sae.about.content_hash})


def _unembedding(run: Run, source: "AtlasSource", kind: str, name: str) -> "Readout":
    """Return final norm and unembedding of the model that the vectors belong to."""
    from interp.atlas.cells import UnembeddingReadout

    if kind == "recording" and isinstance(source.readout, UnembeddingReadout):
        return source.readout
    if kind == "embeddings":
        return UnembeddingReadout(run.model(name))
    if kind == "sae":
        from saes.features.sources import PromotedReadout, writes_to_residual

        model, (sae,) = run.saes([name])
        if writes_to_residual(sae):
            return PromotedReadout(model)
    raise ConfigError(
        f"the unembedding reads the residual stream, what is added to it, and embeddings; not {source.source}"
        + (f" at {source.hook_point}" if source.hook_point else "")
    )
