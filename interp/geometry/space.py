"""Spectrum, dimension and analogies of a model's representation spaces, and the comparison of two models' spaces.

    report = measure_space(model, tokens, ["blocks.3.hook_resid_post"])
    comparison = compare_spaces(tokens, base, tuned)

Points are the token embeddings, and the activations at hook points on tokens of text (BOS excluded). Each number has
its null: isotropic and Gaussian points for the dimensions, shuffled pairs for analogies, shuffled rows for CKA and
Procrustes, split halves of one cloud for the optimal transport distance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.artifacts import Draft, Manifest, save_json, write_table
from interp.errors import ConfigError, MismatchError, UsageError
from interp.geometry.analogies import AnalogySet, WordVectors
from interp.geometry.dimension import IntrinsicDimension, Spectrum, intrinsic_dimension, spectrum
from interp.geometry.points import Finding
from interp.models.hooked import HookedModel
from interp.progress import Progress
from interp.runtime import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

    from interp.geometry.similarity import LayerSimilarity

EMBEDDINGS = "embeddings"
"""Name of the space of the token embeddings."""
RELATIONS = {
    "capital": (
        ("France", "Paris"), ("Italy", "Rome"), ("Germany", "Berlin"), ("Spain", "Madrid"), ("Japan", "Tokyo"),
        ("England", "London"), ("Russia", "Moscow"), ("China", "Beijing"), ("Ireland", "Dublin"), ("Egypt", "Cairo"),
    ),
    "plural": (
        ("cat", "cats"), ("dog", "dogs"), ("house", "houses"), ("car", "cars"), ("book", "books"), ("tree", "trees"),
        ("river", "rivers"), ("king", "kings"), ("child", "children"), ("man", "men"), ("woman", "women"),
    ),
    "past tense": (
        ("go", "went"), ("see", "saw"), ("take", "took"), ("come", "came"), ("give", "gave"), ("find", "found"),
        ("walk", "walked"), ("look", "looked"), ("call", "called"), ("ask", "asked"),
    ),
    "gender": (
        ("man", "woman"), ("king", "queen"), ("father", "mother"), ("son", "daughter"), ("brother", "sister"),
        ("he", "she"), ("boy", "girl"), ("uncle", "aunt"), ("husband", "wife"),
    ),
    "comparative": (
        ("good", "better"), ("bad", "worse"), ("big", "bigger"), ("small", "smaller"), ("high", "higher"),
        ("low", "lower"), ("long", "longer"), ("short", "shorter"), ("fast", "faster"), ("old", "older"),
    ),
}  # fmt: skip
"""Pairs of words, each used with a leading space; pairs that are not single tokens are left out."""


@dataclass(frozen=True, kw_only=True)
class SpaceReport(Finding):
    """Spectrum, anisotropy and intrinsic dimension of each space, and analogies among the embeddings."""

    spectra: dict[str, Spectrum]
    """By space: `embeddings`, then the hook points."""
    dimensions: dict[str, IntrinsicDimension | str]
    """By space; a string gives the reason why there is no estimate."""
    relations: dict[str, AnalogySet | str]

    def sentence(self) -> str:
        lines = [f"{name}: {found}. {self.dimensions[name]}" for name, found in self.spectra.items()]
        return "\n".join([*lines, *(f"{name}: {found}" for name, found in self.relations.items())])

    def to_records(self) -> list[dict[str, Any]]:
        """Return one row per space: its measures, each followed by its null."""
        return [_space_row(name, found, self.dimensions[name]) for name, found in self.spectra.items()]


@dataclass(frozen=True, kw_only=True)
class SpaceComparison(Finding):
    """Spaces of one model compared with each other, or with those of a second model."""

    cka: "LayerSimilarity"
    """CKA of all pairs of spaces."""
    pairs: tuple[dict[str, Any], ...]
    """One record per pair of spaces compared in detail: CKA, Procrustes, optimal transport, with their nulls."""

    def sentence(self) -> str:
        return f"{self.cka}; {len(self.pairs)} pairs compared by Procrustes and optimal transport"

    def to_records(self) -> list[dict[str, Any]]:
        """Return one row per pair."""
        return list(self.pairs)


def read_points(
    model: HookedModel, tokens: "Tensor", hook_points: Sequence[str], n: int, seed: int
) -> dict[str, np.ndarray]:
    """Return `n` rows `[n, d]` float32 per hook point, at the same tokens of `tokens [batch, pos]`; BOS is left out.

    Raises `UnknownNameError` for a hook point that the model does not have, `ConfigError` with too little text.
    """
    import torch

    from interp.models.adapter import available_hook_points, bos_token_id
    from interp.models.passes import Capture
    from interp.names import check_hook_points

    names = check_hook_points(list(hook_points), available_hook_points(model), model.cfg.n_layers)
    bos = bos_token_id(model)
    positions = (tokens != bos).nonzero() if bos is not None else (tokens >= 0).nonzero()
    if len(positions) < n:
        raise ConfigError(f"{n} tokens are needed, the text has {len(positions)}; give more contexts or fewer points")
    order = np.random.default_rng(derive_seed(seed, "tokens read")).permutation(len(positions))[:n]
    chosen = positions[torch.from_numpy(np.sort(order))]
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    with Capture(model, names) as capture:
        for start in range(0, len(tokens), 8):
            mine = chosen[(chosen[:, 0] >= start) & (chosen[:, 0] < start + 8)]
            if len(mine):
                values = capture(tokens[start : start + 8].to(model.cfg.device))
                for name in names:
                    found = values[name].flatten(2)[mine[:, 0] - start, mine[:, 1]]
                    rows[name].append(found.float().cpu().numpy())
    return {name: np.concatenate(each) for name, each in rows.items()}


def measure_space(
    model: HookedModel,
    tokens: "Tensor | None" = None,
    hook_points: Sequence[str] = (),
    *,
    n_points: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> SpaceReport:
    """Measure the token embeddings, and `n_points` tokens of `tokens [batch, pos]` at each hook point.

    Cost: per space all distances of `n_points` points; for analogies, each pair of words against each other pair over
    the vocabulary. Raises as `read_points`.
    """
    from interp.models.adapter import ordinary_tokens

    spaces = {EMBEDDINGS: model.W_E[ordinary_tokens(model)].detach().float().cpu().numpy()}
    if hook_points:
        if tokens is None:
            raise ConfigError("values at hook points need text to be read on; give tokens")
        spaces |= read_points(model, tokens, hook_points, n_points, seed)
    spectra, dimensions = {}, {}
    for done, (name, points) in enumerate(spaces.items()):
        spectra[name] = spectrum(points, seed=seed)
        dimensions[name] = _or_why(lambda points=points: intrinsic_dimension(points, max_points=n_points, seed=seed))
        if progress:
            progress(done + 1, len(spaces) + 1, {"space": name})
    words = WordVectors.of(model)
    relations = {name: _or_why(lambda pairs=pairs: _relation(words, pairs, seed)) for name, pairs in RELATIONS.items()}
    if progress:
        progress(len(spaces) + 1, len(spaces) + 1, {"space": "analogies"})
    return SpaceReport(spectra=spectra, dimensions=dimensions, relations=relations)


def compare_spaces(
    tokens: "Tensor",
    first: Any,
    second: Any = None,
    *,
    hook_points: Sequence[str] = (),
    n_points: int = 1024,
    batch: int = 256,
    n_shuffles: int = 19,
    seed: int = 0,
    progress: Progress | None = None,
) -> SpaceComparison:
    """Compare the residual stream after every block (or the `hook_points`) of one model, or of two on the same tokens.

    CKA covers all pairs, in batches. Neighbouring layers of one model are compared in detail. For two models, each
    layer of the first is compared with the layer of the same name, or else with the one of the largest CKA. Optimal
    transport needs vectors of one width. Raises `MismatchError` for two vocabularies, and as `read_points`.
    """
    import torch

    from interp.geometry.similarity import batched_cka
    from interp.models.adapter import tokenizer_hash

    if second is not None and tokenizer_hash(first) != tokenizer_hash(second):
        raise MismatchError("the two models have different tokenizers, so they cannot read the same tokens")
    models = {"": first} if second is None else {"A ": first, "B ": second}
    spaces: dict[str, np.ndarray] = {}
    for mark, model in models.items():
        read = hook_points or [f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers)]
        found = read_points(model, tokens, read, n_points, seed)
        spaces |= {mark + name: points for name, points in found.items()}
    order = np.random.default_rng(derive_seed(seed, "order of rows")).permutation(n_points)
    batches = np.split(order, range(batch, n_points, batch))
    parts = ([torch.from_numpy(points[rows]) for points in spaces.values()] for rows in batches)
    names = list(spaces)
    cka = batched_cka(parts, names, seed=seed)
    pairs, chosen = [], _close_pairs(names, cka.cka)
    for done, (i, j) in enumerate(chosen):
        record = {"first": names[i], "second": names[j], "cka": float(cka.cka[i, j])}
        record |= {"cka_error": float(cka.error[i, j]), "cka_null": float(cka.shuffled[i, j])}
        pairs.append(record | _closely(spaces[names[i]], spaces[names[j]], n_shuffles, seed))
        if progress:
            progress(done + 1, len(chosen), {"pair": names[i]})
    return SpaceComparison(cka=cka, pairs=tuple(pairs))


def save_space(
    found: SpaceReport | SpaceComparison,
    folder: Path,
    *,
    config: dict[str, Any],
    parents: dict[str, str],
    seed: int = 0,
    threads: int | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write a report or a comparison into a folder; return the manifest.

    A report gives `space.json` (spectra, dimensions, relations) and `spaces.parquet`; a comparison gives `cka.parquet`
    (all pairs) and `pairs.parquet`. Raises as `Draft.open`.
    """
    kind = "space" if isinstance(found, SpaceReport) else "space_comparison"
    draft = Draft.open(folder, kind=kind, config=config, seed=seed, overwrite=overwrite)
    summary = _write_report(found, draft.path) if isinstance(found, SpaceReport) else _write_pairs(found, draft.path)
    return draft.finish(summary=summary, parents=parents, threads=threads)


def _write_report(report: SpaceReport, folder: Path) -> dict[str, Any]:
    """Write the files of a report; return the summary of the manifest."""
    parts = ("spectra", "dimensions", "relations")
    save_json({name: getattr(report, name) for name in parts}, folder / "space.json")
    write_table(folder / "spaces.parquet", _table(report.to_records()))
    relations = {
        name: {"accuracy": found.accuracy, "null": max(found.c_alone, found.shuffled_high), "n": found.n}
        for name, found in report.relations.items()
        if isinstance(found, AnalogySet)
    }
    return {"spaces": report.to_records(), "relations": relations}


def _write_pairs(found: SpaceComparison, folder: Path) -> dict[str, Any]:
    """Write the files of a comparison; return the summary of the manifest."""
    names, cka = found.cka.hook_points, found.cka
    write_table(folder / "cka.parquet", _table(cka.to_records()))
    write_table(folder / "pairs.parquet", _table(list(found.pairs)))
    away = ~np.eye(len(names), dtype=bool)
    return {
        **{"spaces": list(names), "n_rows": cka.n_rows, "batch": cka.batch, "n_pairs": len(found.pairs)},
        "null_largest": float(np.abs(cka.shuffled[away]).max(initial=0)),
        "smallest_cka": min((pair["cka"] for pair in found.pairs), default=None),
    }


def _space_row(name: str, found: Spectrum, dimension: IntrinsicDimension | str) -> dict[str, Any]:
    row: dict[str, Any] = {"space": name, "n": found.n, "d": found.d}
    row |= {"cosine": found.cosine_raw, "cosine_centred": found.cosine_centred, "mean_share": found.mean_share}
    row |= {"participation_ratio": found.participation_ratio, "isotropic": found.isotropic["participation_ratio"]}
    row |= {"components_90": found.dims["90"], "isotropic_90": found.isotropic["dims"]["90"]}
    estimates = {} if isinstance(dimension, str) else {each.estimator: each for each in dimension.estimates}
    for estimator, key in (("TwoNN", "two_nn"), ("MLE", "mle"), ("local PCA", "local_pca")):
        each = estimates.get(estimator)
        row |= {key: each and each.dimension.estimate, f"{key}_gaussian": each and each.gaussian}
    return row


def _relation(words: WordVectors, pairs: Sequence[tuple[str, str]], seed: int) -> AnalogySet:
    """Return the accuracy over the pairs whose words are single tokens, each with a leading space."""
    known = set(words.words)
    spaced = [(f" {one}", f" {two}") for one, two in pairs]
    whole = [pair for pair in spaced if known.issuperset(pair)]
    if len(whole) < 3:
        raise ConfigError(f"{len(whole)} of {len(pairs)} pairs are single tokens; at least three are needed")
    return words.relation(whole, seed=seed)


def _close_pairs(names: list[str], cka: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs to compare in detail: neighbours of one model, or the counterpart in the second model."""
    ours = [i for i, name in enumerate(names) if not name.startswith("B ")]
    others = {name.removeprefix("B "): i for i, name in enumerate(names) if name.startswith("B ")}
    if not others:
        return list(pairwise(ours))
    likest = {i: max(others.values(), key=lambda j: cka[i, j]) for i in ours}
    return [(i, others.get(names[i].removeprefix("A "), likest[i])) for i in ours]


def _closely(x: np.ndarray, y: np.ndarray, n_shuffles: int, seed: int) -> dict[str, Any]:
    """Return Procrustes and, for equal widths, optimal transport, with their nulls."""
    from interp.geometry.similarity import compare_clouds, procrustes

    fit = procrustes(x, y, n_shuffles=n_shuffles, seed=seed)
    row: dict[str, Any] = {"procrustes": fit.value, "procrustes_null": fit.null_range[0], "procrustes_p": fit.p}
    order = np.random.default_rng(derive_seed(seed, "halves of tokens")).permutation(len(x))
    one, two = order[: len(x) // 2], order[len(x) // 2 :]  # disjoint tokens, so that no point lies in both clouds
    cloud = None
    if x.shape == y.shape:
        cloud = compare_clouds(x[one], y[two], n_splits=3, n_relabelled=19, max_points=300, seed=seed)
    for key in ("between", "floor", "excess", "p"):
        row[f"transport_{key}"] = cloud and getattr(cloud, key)
    return row


def _or_why(measure: Any) -> Any:
    try:
        return measure()
    except UsageError as error:
        return str(error)


def _table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows)
