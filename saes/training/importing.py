"""Import a peer's checkpoint as `saes/<name>/`: read, check, attach model and hook point, write in our format."""

from collections.abc import Callable
from pathlib import Path

from interp.artifacts import Draft, save_artefact
from interp.artifacts.artefact import settings_json
from saes.kinds.base import SAE
from saes.training.scores import ProseScores
from saes.training.stored import StoredSAE
from saes.weights.folder import save_sae
from saes.weights.imported import ImportedSettings
from saes.weights.importing import Origin, agree_on_origin, check_widths, source_files
from saes.weights.read import load_checked, write_probe


def import_dictionary(
    path: Path | str,
    folder: Path,
    origin: Origin,
    *,
    measure_widths: Callable[[list[str]], dict[str, int]] | None = None,
    measure_prose: Callable[[SAE], ProseScores | None] | None = None,
    format: str | None = None,
    allow_mismatch: bool = False,
    overwrite: bool = False,
) -> StoredSAE:
    """Write the dictionary at `path` into `folder` with its self-check, and return it as stored.

    `measure_widths` returns the model's widths at hook points; without it widths are not compared. `measure_prose`
    returns the scores on the doctor's prose that are stored with it. Raises what `load_dictionary` does, `ConfigError`
    when no hook point is known, `MismatchError` when the files name another model, weights or hook point (unless
    `allow_mismatch`) or when widths differ.
    """
    path = Path(path).expanduser().absolute()
    loaded = load_checked(path, format)
    about = agree_on_origin(loaded.sae, origin, allow_mismatch=allow_mismatch)
    if measure_widths:
        check_widths(loaded.sae, about, measure_widths([n for n in (about.hook_point, about.hook_point_out) if n]))
    settings = ImportedSettings(
        format=loaded.format,
        source=path.name,
        source_files=source_files(path),
        model=about.model,
        weight_hash=about.weight_hash,
        hook_point=about.hook_point,
        hook_point_out=about.hook_point_out,
    )
    draft = Draft.open(folder, kind="sae", config=settings_json(settings), overwrite=overwrite)
    loaded.sae.metadata = about
    loaded.sae.hook_point = about.hook_point
    save_sae(loaded.sae, draft.path)
    write_probe(draft.path, loaded.probe)
    found = StoredSAE(
        settings=settings,
        d_in=loaded.sae.d_in,
        d_sae=loaded.sae.d_sae,
        architecture=loaded.sae.architecture,
        training=None,
        heldout=None,
        heldout_before_rounding=None,
        self_check=loaded.check,
        prose=measure_prose(loaded.sae) if measure_prose else None,
    )
    return save_artefact(found, folder, parents={f"model:{about.model}": about.weight_hash}, draft=draft)
