"""Dictionaries of one place side by side, at the sparsity that each has and at one that all share.

A reconstruction is bought with active features, so errors compare only at the same L0: every dictionary is also cut to
the smallest L0 among them (`truncation.py`). Dictionaries that learned nothing stand in the table: principal
components, the place's own coordinates (at `mlp.hook_post` its neurons), an untrained SAE. And a better reconstruction
is no proof of better features: where the data come from a known dictionary, the table also says how much of it was
found, and `reversals` names the pairs that the reconstruction error ranks the wrong way round. Runs that differ only in
their seed are also shown as one, with the interval over seeds: a difference within it is noise.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from interp.errors import ConfigError, MismatchError
from interp.progress import Progress
from interp.recording.store import Recording
from saes.baselines import coordinates_of, untrained_sae
from saes.comparison import Compared, Comparison, ProbedRow, group_rows
from saes.decoder_cosines import near_copies, nearest_cosines
from saes.evaluate import Evaluation, evaluate_on_recording
from saes.evaluate_model import ModelEvaluation, can_splice, evaluate_all_in_model
from saes.kinds.base import SAE
from saes.pca import pca_of
from saes.recovery import measure_recovery
from saes.source import Source
from saes.synthetic import SyntheticData
from saes.truncation import truncate

CUT_ROWS = 65_536
"""Held-out rows at most on which cutoffs are set."""


def compare(
    saes: Mapping[str, SAE],
    recording: Recording,
    *,
    l0: float | None = None,
    baselines: bool = True,
    model: Any = None,
    tokens: Tensor | None = None,
    documents: Tensor | None = None,
    truth: SyntheticData | None = None,
    probing: Mapping[str, ProbedRow] | None = None,
    groups: Mapping[str, str] | None = None,
    heldout_fraction: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Compare dictionaries that read and reconstruct the same place; `l0` None takes the smallest L0 among them.

    With `model` and `tokens [n, n_ctx]` (and their `documents`) what the model loses is measured too. `truth` is what
    the recording was drawn from (`read_synthetic`). `probing` says what sparse probes found, by name; `groups` which
    dictionaries are runs of one recipe. Baselines stand where one place is read and reconstructed; they get `k` = the
    common L0.

    Raises `ConfigError` (nothing to compare, an L0 not above 0), `MismatchError` (dictionaries of other places).
    """
    _check_places(saes)
    if l0 is not None and l0 <= 0:
        raise ConfigError(f"l0 must be above 0, got {l0}")

    def heldout(sae: SAE) -> Evaluation:
        return evaluate_on_recording(sae, recording, heldout_fraction=heldout_fraction, seed=seed)

    own = {name: heldout(sae) for name, sae in saes.items()}
    target = min(found.l0 for found in own.values()) if l0 is None else l0
    others = _baselines(next(iter(saes.values())), recording, target, heldout_fraction, seed) if baselines else {}
    everyone = {**saes, **{name: sae for name, sae in others.items() if name not in saes}}
    cuts = {
        name: truncate(sae, _heldout_rows(sae, recording, heldout_fraction), target) if name in saes else sae
        for name, sae in everyone.items()
    }
    inside: dict[str, ModelEvaluation] = {}
    if model is not None and tokens is not None and all(map(can_splice, cuts.values())):
        inside = evaluate_all_in_model(cuts, model, tokens, documents=documents, seed=seed, progress=progress)
    rows = []
    for number, (name, sae) in enumerate(everyone.items()):
        before = own.get(name) or heldout(sae)
        nearest = nearest_cosines(sae.decoder_directions)
        rows.append(
            Compared(
                name=name,
                architecture=sae.architecture,
                d_sae=sae.d_sae,
                baseline=name not in saes,
                own=before,
                matched=before if cuts[name] is sae else heldout(cuts[name]),
                nearest_cosine=float(nearest.mean()),
                near_copies=near_copies(nearest),
                model=inside.get(name),
                recovery=measure_recovery(sae, truth, seed=seed) if truth else None,
                probing=(probing or {}).get(name),
            )
        )
        if progress:
            progress(number + 1, len(everyone), {"dictionary": name})
    return Comparison(l0=target, rows=rows, groups=group_rows(rows, groups or {}))


def _check_places(saes: Mapping[str, SAE]) -> None:
    if not saes:
        raise ConfigError("a comparison needs at least one dictionary")
    places = {name: (sae.hook_points, sae.hook_point_out or sae.hook_point) for name, sae in saes.items()}
    if len(set(places.values())) > 1:
        listed = "; ".join(f"{name}: {', '.join(read)} -> {made}" for name, (read, made) in places.items())
        raise MismatchError(f"dictionaries compare only at one place, these are at several ({listed})")


def _baselines(sae: SAE, recording: Recording, l0: float, heldout_fraction: float, seed: int) -> dict[str, SAE]:
    if len(sae.hook_points) > 1 or sae.hook_point_out not in ("", sae.hook_point):
        return {}
    place, k = sae.hook_point, max(1, min(round(l0), sae.d_in, sae.d_sae))
    return {
        "pca": pca_of(recording, place, k=k, heldout_fraction=heldout_fraction),
        "coordinates": coordinates_of(recording, place, k=k),
        "untrained": untrained_sae(recording, place, d_sae=sae.d_sae, k=k, seed=seed),
    }


def _heldout_rows(sae: SAE, recording: Recording, heldout_fraction: float) -> Iterator[Tensor]:
    source, n = Source(recording, sae.hook_points, target=sae.hook_point_out), 0
    for batch in source.sequential(batch_size=4096, split="heldout", heldout_fraction=heldout_fraction):
        yield batch.x
        n += len(batch.x)
        if n >= CUT_ROWS:
            return
