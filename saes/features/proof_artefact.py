"""The proof of a feature as an artefact. Each part is stored once it is made, so that an interrupted run resumes."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from interp.artifacts import Draft, Manifest, read_json, read_manifest, write_json, write_table
from interp.dictionary import Dictionary
from interp.errors import WorkbenchError
from interp.models.hooked import HookedModel
from interp.progress import Progress
from saes.features.measure_proof import Part, prove
from saes.features.proof import Proof, ProofConfig

PARTS = "parts"
"""Folder of the finished parts, in the unfinished artefact."""


def save_proof(
    model: HookedModel,
    dictionary: Dictionary,
    features: Path,
    feature: int,
    folder: Path,
    config: ProofConfig | None = None,
    *,
    model_name: str,
    parents: dict[str, str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Proof, Manifest]:
    """Run the proof and write `proof.json` and `draws.parquet`. The same call resumes after the last finished part."""
    from interp.models.adapter import weight_hash

    config = config or ProofConfig()
    about = {"features": features.name, "feature": feature, "model": model_name, **asdict(config)}
    known = {f"features/{features.name}": read_manifest(features).content_hash}
    known |= {f"model:{model_name}": weight_hash(model), **(parents or {})}
    draft = Draft.open(folder, kind="proof", config=about, seed=seed, overwrite=overwrite)
    kept = draft.path / PARTS
    if kept.exists() and read_json(kept / "of.json") != known:  # parts of other weights or tables
        shutil.rmtree(kept)
    write_json(kept / "of.json", known)

    def report(done: int, total: int, info: dict) -> None:
        draft.update(done=done, total=total, **info)
        if progress:
            progress(done, total, info)

    def remembered(name: str, make: Callable[[], Part]) -> Part:
        path = kept / f"{name}.json"
        if not path.exists():
            write_json(path, make())
        return read_json(path)

    try:
        proof = prove(model, dictionary, features, feature, config, seed=seed, progress=report, remembered=remembered)
    except WorkbenchError:  # a mistake: nothing to resume
        draft.discard()
        raise
    write_json(draft.path / "proof.json", proof.to_json())
    write_table(draft.path / "draws.parquet", proof.draws_table())
    shutil.rmtree(kept)  # last: until here a crash loses no part
    return proof, draft.finish(summary=proof.summary(), parents=known, threads=torch.get_num_threads())
