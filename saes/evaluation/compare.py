"""Comparison of dictionaries of one hook point, at the L0 of each and at a common L0.

**Common L0.** More active latents reconstruct better, so reconstruction errors compare only at the same L0. Every
dictionary is therefore also truncated to the smallest L0 among them. One cutoff serves all latents: an activation is
retained where its contribution, `activation * |decoder row|`, reaches the cutoff. The cutoff is set on the rows that
are then measured, since latents fire at other rates on other text; it is a single number, the sparsity. Nothing is
trained again. A dictionary trained at that L0 would do better, so read each truncated score next to the score at the
dictionary's own L0.

**Baselines.** The table includes principal components, the coordinates of the hook point (at `mlp.hook_post` the
neurons) and an untrained SAE.

**Ground truth.** A better reconstruction does not prove better features. Where the data come from a known dictionary,
the table also reports the recovery of that dictionary, and `reversals` lists the pairs whose order by reconstruction
error is the opposite of their order by recovery.

**Seeds.** Runs that differ only in their seed are also shown as a group, with the interval over seeds: a difference
within it is noise.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.dictionary import SparseActs
from interp.errors import ConfigError, MismatchError
from interp.models.hooked import HookedModel
from interp.progress import Progress
from interp.recording.store import Recording
from interp.statistics import t_interval
from saes.evaluation.baselines import coordinates_of, pca_of, untrained_sae
from saes.evaluation.in_model import can_splice, evaluate_all_in_model
from saes.evaluation.matching import near_copies, nearest_cosines
from saes.evaluation.sae_comparison import DictionaryScores, SAEComparison, SAEComparisonSettings, SeedGroup
from saes.evaluation.scores import InModel
from saes.evaluation.synthetic import SyntheticData, measure_recovery
from saes.kinds.base import SAE
from saes.training.data import RowSource
from saes.training.reconstruction import evaluate_on_recording
from saes.training.stored import Reconstruction


def group_rows(rows: Sequence[DictionaryScores], groups: Mapping[str, str]) -> list[SeedGroup]:
    """Average the rows of each group; `groups` maps a dictionary's name to the name of its group.

    A group of one row has no spread over seeds and is left out.
    """
    averages = []
    for group in dict.fromkeys(groups.values()):
        members = [row for row in rows if groups.get(row.name) == group]
        if len(members) < 2:
            continue
        by_member = [row.scores() for row in members]
        shared = [name for name in by_member[0] if all(name in scores for scores in by_member)]
        ends = t_interval(np.array([[scores[name] for scores in by_member] for name in shared]))
        intervals = {name: ends.at(i) for i, name in enumerate(shared)}
        averages.append(SeedGroup(name=group, members=tuple(row.name for row in members), scores=intervals))
    return averages


@final
class TruncatedSAE(SAE):
    """Dictionary `inner` with contributions below `cutoff` set to 0; for evaluation, not for saving."""

    norms: Tensor
    """`[d_sae]`: norms of the decoder rows"""

    def __init__(self, inner: SAE, cutoff: float):
        super().__init__()
        self.inner, self.cutoff, self.architecture = inner, cutoff, inner.architecture
        self.W_dec, self.b_dec = inner.W_dec, inner.b_dec
        self.describe(inner.d_in, inner.metadata)
        self.register_buffer("norms", self.W_dec.norm(dim=1), persistent=False)

    @property
    def hook_points(self) -> tuple[str, ...]:
        return self.inner.hook_points

    def saved_tensors(self) -> dict[str, Tensor]:
        raise NotImplementedError("a truncated dictionary is for evaluation only")

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        acts = self.inner.encode(x)
        return acts * (acts * self.norms >= self.cutoff)

    def encode_sparse(self, x: Float[Tensor, "n d_in"]) -> SparseActs:
        acts = self.inner.encode_sparse(x)
        return acts._replace(values=acts.values * (acts.values * self.norms[acts.indices.long()] >= self.cutoff))

    def complete(
        self, recons: Float[Tensor, "*#batch d_out"], x: Float[Tensor, "*#batch d_in"]
    ) -> Float[Tensor, "*#batch d_out"]:
        return self.inner.complete(recons, x)


@torch.no_grad()
def truncate(sae: SAE, batches: Iterator[Float[Tensor, "n d_in"]], l0: float) -> SAE:
    """Truncate `sae` to `l0` active latents per row on `batches [n, d_in]`; return `sae` itself if it has no more.

    Raises `ConfigError` without rows, or with an L0 that is not above 0.
    """
    if l0 <= 0:
        raise ConfigError(f"l0 must be above 0, got {l0}")
    norms, contributions, n = sae.W_dec.norm(dim=1), [], 0
    for x in batches:
        acts = sae.encode_sparse(x.to(sae.device))
        added = acts.values * norms[acts.indices.long()]
        contributions.append(added[added > 0])
        n += len(x)
    if not n:
        raise ConfigError("setting a cutoff needs held-out rows, got none; record more documents")
    added, n_active = torch.cat(contributions), max(1, round(l0 * n))
    if len(added) <= n_active:
        return sae
    return TruncatedSAE(sae, float(added.topk(n_active).values[-1]))


CUT_ROWS = 65_536
"""Largest number of held-out rows on which a cutoff is set."""


def compare(
    saes: Mapping[str, SAE],
    recording: Recording,
    *,
    l0: float | None = None,
    model: HookedModel | None = None,
    tokens: Int[Tensor, "..."] | None = None,
    documents: Int[Tensor, "..."] | None = None,
    truth: SyntheticData | None = None,
    groups: Mapping[str, str] | None = None,
    heldout_fraction: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> SAEComparison:
    """Compare dictionaries that read and reconstruct the same hook point, on held-out rows of `recording`.

    `saes` are the dictionaries by name. `l0` is the common L0; None takes the smallest L0 among the dictionaries. With
    `model` and `tokens [n, n_ctx]` (and their `documents`) the loss of the model with each dictionary spliced in is
    measured too. `truth` is the synthetic data that the recording was drawn from (`read_synthetic`). `groups` maps each
    run to its recipe. Baselines are added for dictionaries that reconstruct the one hook point that they read; their
    `k` is the common L0.

    Raises `ConfigError` (nothing to compare, an L0 not above 0), `MismatchError` (several hook points).
    """
    _check_hook_points(saes)
    if l0 is not None and l0 <= 0:
        raise ConfigError(f"l0 must be above 0, got {l0}")

    def heldout(sae: SAE) -> Reconstruction:
        return evaluate_on_recording(sae, recording, heldout_fraction=heldout_fraction, seed=seed)

    scores = {name: heldout(sae) for name, sae in saes.items()}
    target = min(score.l0 for score in scores.values()) if l0 is None else l0
    others = _baselines(next(iter(saes.values())), recording, target, heldout_fraction, seed)
    compared = {**saes, **{name: sae for name, sae in others.items() if name not in saes}}
    cuts = {
        name: truncate(sae, _heldout_rows(sae, recording, heldout_fraction), target) if name in saes else sae
        for name, sae in compared.items()
    }
    spliced: dict[str, InModel] = {}
    if model is not None and tokens is not None:
        spliced = _spliced(cuts, model, tokens, documents, seed, progress)
    rows = []
    for number, (name, sae) in enumerate(compared.items()):
        score = scores.get(name) or heldout(sae)
        nearest = nearest_cosines(sae.decoder_directions)
        rows.append(
            DictionaryScores(
                name=name,
                architecture=sae.architecture,
                d_sae=sae.d_sae,
                baseline=name not in saes,
                own=score,
                matched=score if cuts[name] is sae else heldout(cuts[name]),
                nearest_cosine=float(nearest.mean()),
                near_copies=near_copies(nearest),
                model=spliced.get(name),
                recovery=measure_recovery(sae, truth, seed=seed) if truth else None,
            )
        )
        if progress:
            progress(number + 1, len(compared), {"dictionary": name})
    settings = SAEComparisonSettings(
        saes=tuple(saes),
        recording=recording.folder.name,
        l0=l0,
        contexts=0 if tokens is None else len(tokens),
        match=False,
        heldout_fraction=heldout_fraction,
    )
    grouped = tuple(group_rows(rows, groups or {}))
    return SAEComparison(settings=settings, l0=target, rows=tuple(rows), groups=grouped, shared={}, matches=None)


def _spliced(
    saes: Mapping[str, SAE],
    model: HookedModel,
    tokens: Int[Tensor, "..."],
    documents: Int[Tensor, "..."] | None,
    seed: int,
    progress: Progress | None,
) -> dict[str, InModel]:
    """Return the loss of the model with each dictionary spliced in; nothing where one of them cannot be."""
    if not all(map(can_splice, saes.values())):
        return {}
    device = torch.device(model.cfg.device)
    on_device = {name: sae if sae.device == device else deepcopy(sae).to(device) for name, sae in saes.items()}
    return evaluate_all_in_model(on_device, model, tokens, documents=documents, seed=seed, progress=progress)


def _check_hook_points(saes: Mapping[str, SAE]) -> None:
    if not saes:
        raise ConfigError("a comparison needs at least one dictionary, got none; name one that was trained")
    hook_points = {name: (sae.hook_points, sae.hook_point_out or sae.hook_point) for name, sae in saes.items()}
    if len(set(hook_points.values())) > 1:
        listed = "; ".join(f"{name}: {', '.join(read)} -> {written}" for name, (read, written) in hook_points.items())
        raise MismatchError(
            f"dictionaries compare only at one hook point, these are at several ({listed}); compare those of one"
        )


def _baselines(sae: SAE, recording: Recording, l0: float, heldout_fraction: float, seed: int) -> dict[str, SAE]:
    if len(sae.hook_points) > 1 or sae.hook_point_out not in ("", sae.hook_point):
        return {}
    hook_point, k = sae.hook_point, max(1, min(round(l0), sae.d_in, sae.d_sae))
    baselines = {
        "pca": pca_of(recording, hook_point, k=k, heldout_fraction=heldout_fraction),
        "coordinates": coordinates_of(recording, hook_point, k=k),
        "untrained": untrained_sae(recording, hook_point, d_sae=sae.d_sae, k=k, seed=seed),
    }
    return {name: baseline.to(sae.device) for name, baseline in baselines.items()}


def _heldout_rows(sae: SAE, recording: Recording, heldout_fraction: float) -> Iterator[Tensor]:
    source, n = RowSource(recording, sae.hook_points, target=sae.hook_point_out), 0
    for batch in source.sequential(batch_size=4096, split="heldout", heldout_fraction=heldout_fraction):
        yield batch.x
        n += len(batch.x)
        if n >= CUT_ROWS:
            return
