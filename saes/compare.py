"""Dictionaries of one place side by side, at the sparsity that each has and at one that all share.

A reconstruction is bought with active features, so errors compare only at the same L0: every dictionary is also cut to
the smallest L0 among them (`truncation.py`). Dictionaries that learned nothing stand in the table: principal
components, the place's own coordinates (at `mlp.hook_post` its neurons), an untrained SAE. And a better reconstruction
is no proof of better features: where the data come from a known dictionary, the table also says how much of it was
found, and `reversals` names the pairs that the reconstruction error ranks the wrong way round.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from torch import Tensor

from interp.errors import ConfigError, MismatchError
from interp.recording.store import Recording
from saes.baselines import coordinates_of, untrained_sae
from saes.evaluate import Evaluation, ModelEvaluation, evaluate_in_model, evaluate_on_recording
from saes.kinds.base import SAE
from saes.pca import pca_of
from saes.recovery import Recovery, measure_recovery
from saes.source import Source
from saes.synthetic import SyntheticData
from saes.truncation import truncate

NEAR_COPY = 0.9
"""Cosine above which a decoder row has a near copy."""

REVERSAL = 0.1
"""By how much F1 must be lower for a better reconstruction to be called misleading: three times what the difference
between two seeds of one kind varies by (standard deviation .03)."""

CUT_ROWS = 65_536
"""Held-out rows at most on which cutoffs are set."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One dictionary of a comparison. `own` and `matched` are on held-out rows."""

    name: str
    architecture: str
    d_sae: int
    baseline: bool
    own: Evaluation
    """at the L0 that it has by itself"""
    matched: Evaluation
    """cut to the common L0; the same numbers where it has no more than that"""
    nearest_cosine: float
    """Mean over features of the largest cosine with another decoder row; random rows have more than 0."""
    near_copies: float
    """Share of features with another decoder row above `NEAR_COPY`."""
    model: ModelEvaluation | None = None
    """inside the model, at the common L0"""
    recovery: Recovery | None = None
    """against the truth, where there is one, at its own L0"""


@dataclass(frozen=True, kw_only=True)
class Reversal:
    """`lower_error` reconstructs better than `more_found` and has found less of the true dictionary."""

    lower_error: Compared
    more_found: Compared

    def __str__(self) -> str:
        a, b = self.lower_error, self.more_found
        assert a.recovery is not None
        assert b.recovery is not None
        return (
            f"{a.name} reconstructs better than {b.name} (FVU {a.own.fvu:.3f} against {b.own.fvu:.3f}, at L0 "
            f"{a.own.l0:.1f} and {b.own.l0:.1f}) but found less of the true dictionary "
            f"(F1 {a.recovery.f1:.2f} against {b.recovery.f1:.2f})"
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found."""

    l0: float
    """the common L0 that was aimed at"""
    rows: list[Compared]

    @property
    def reversals(self) -> list[Reversal]:
        """Pairs, baselines left out, whose order by reconstruction error is that of the true features turned round."""
        trained = [row for row in self.rows if row.recovery and not row.baseline]
        return [Reversal(lower_error=a, more_found=b) for a, b in permutations(trained, 2) if _misleads(a, b)]

    def table(self) -> str:
        """Plain text, one dictionary a line, best matched FVU first, and the reversals below."""
        columns = _columns(self)
        rows = sorted(self.rows, key=lambda row: row.matched.fvu)
        cells = [[title for title, _ in columns], *([show(row) for _, show in columns] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
            for line in cells
        ]
        return "\n".join([*lines, *map(str, self.reversals)])


def compare(
    saes: Mapping[str, SAE],
    recording: Recording,
    *,
    l0: float | None = None,
    baselines: bool = True,
    model: Any = None,
    tokens: Tensor | None = None,
    truth: SyntheticData | None = None,
    heldout_fraction: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, int, dict], None] | None = None,
) -> Comparison:
    """Compare dictionaries that read and reconstruct the same place; `l0` None takes the smallest L0 among them.

    With `model` and `tokens [n, n_ctx]` what the model loses is measured too. `truth` is what the recording was drawn
    from (`read_synthetic`). Baselines stand where one place is read and reconstructed; they get `k` = the common L0.

    Raises `ConfigError` (nothing to compare, an L0 not above 0), `MismatchError` (dictionaries of other places).
    """
    _check_places(saes)
    if l0 is not None and l0 <= 0:
        raise ConfigError(f"l0 must be above 0, got {l0}")

    def heldout(sae: SAE) -> Evaluation:
        return evaluate_on_recording(sae, recording, heldout_fraction=heldout_fraction)

    own = {name: heldout(sae) for name, sae in saes.items()}
    target = min(found.l0 for found in own.values()) if l0 is None else l0
    others = _baselines(next(iter(saes.values())), recording, target, heldout_fraction, seed) if baselines else {}
    everyone = {**saes, **{name: sae for name, sae in others.items() if name not in saes}}
    rows = []
    for number, (name, sae) in enumerate(everyone.items()):
        before = own.get(name) or heldout(sae)
        cut = truncate(sae, _heldout_rows(sae, recording, heldout_fraction), target) if name in saes else sae
        inside = model is not None and tokens is not None and sae.hook_point_out in ("", sae.hook_point)
        nearest = nearest_cosines(sae.decoder_directions)
        rows.append(
            Compared(
                name=name,
                architecture=sae.architecture,
                d_sae=sae.d_sae,
                baseline=name not in saes,
                own=before,
                matched=before if cut is sae else heldout(cut),
                nearest_cosine=float(nearest.mean()),
                near_copies=float((nearest > NEAR_COPY).float().mean()),
                model=evaluate_in_model(cut, model, tokens) if inside and tokens is not None else None,
                recovery=measure_recovery(sae, truth, seed=seed) if truth else None,
            )
        )
        if progress:
            progress(number + 1, len(everyone), {"dictionary": name})
    return Comparison(l0=target, rows=rows)


def nearest_cosines(directions: Tensor) -> Tensor:
    """`[n]`: the largest cosine of every row of `directions [n, d]` with another row."""
    from interp.atlas.neighbours import nearest_neighbours

    return 1 - nearest_neighbours(directions.detach().cpu(), 1).distances[:, 0]


def _misleads(a: Compared, b: Compared) -> bool:
    if not (a.recovery and b.recovery):
        return False
    return a.own.fvu < b.own.fvu and a.recovery.f1 < b.recovery.f1 - REVERSAL


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


def _columns(comparison: Comparison) -> list[tuple[str, Callable[[Compared], str]]]:
    columns: list[tuple[str, Callable[[Compared], str]]] = [
        ("dictionary", lambda row: row.name),
        ("features", lambda row: f"{row.d_sae:,}"),
        ("L0", lambda row: f"{row.own.l0:.1f}"),
        ("FVU", lambda row: f"{row.own.fvu:.4f}"),
        ("L0 cut", lambda row: f"{row.matched.l0:.1f}"),
        (f"FVU at L0 {comparison.l0:.1f}", lambda row: f"{row.matched.fvu:.4f}"),
        ("dead", lambda row: f"{row.own.dead_fraction:.1%}"),
        ("dense", lambda row: f"{row.own.dense_fraction:.1%}"),
        ("nearest cos", lambda row: f"{row.nearest_cosine:.2f}"),
        (f"cos > {NEAR_COPY}", lambda row: f"{row.near_copies:.1%}"),
        ("rel. bias", lambda row: f"{row.own.relative_bias:.3f}"),
        ("l2 ratio", lambda row: f"{row.own.l2_ratio:.3f}"),
    ]
    if any(row.model for row in comparison.rows):
        columns.append(("CE recovered", lambda row: f"{row.model.ce_recovered:.3f}" if row.model else ""))
        columns.append(("from mean", lambda row: f"{row.model.ce_recovered_from_mean:.3f}" if row.model else ""))
    if any(row.recovery for row in comparison.rows):
        columns.append(("MCC", lambda row: f"{row.recovery.mcc:.3f}" if row.recovery else ""))
        columns.append(("F1", lambda row: f"{row.recovery.f1:.3f}" if row.recovery else ""))
    return columns
