"""Spectrum, dimension and analogies of a model's representation spaces, and the comparison of two models' spaces.

    report = measure_space(model, tokens, ["blocks.3.hook_resid_post"])
    comparison = compare_spaces(tokens, base, tuned)

Points are the token embeddings, and the activations at hook points on tokens of text (BOS excluded). Each number has
its null: isotropic and Gaussian points for the dimensions, shuffled pairs for analogies, shuffled rows for CKA and
Procrustes, split halves of one cloud for the optimal transport distance.

**CKA** of all pairs of layers takes one pass over batches (`batched_cka`):

1. Rows come shuffled, a batch at a time, for all hook points together.
2. Each batch gives one kernel matrix per hook point, and the unbiased HSIC of every pair. That is one product of the
   flattened kernels `[layers, batch^2]` with their transpose.
3. HSICs are averaged over batches (Nguyen et al. 2021). Each is unbiased at any batch size, and so is their mean. The
   ratio of the means converges to the CKA of all rows as batches are added.

The standard error is a delete-one jackknife over batches. The null is the same pass with each batch's rows shuffled for
one side. Memory is `layers * batch^2` floats, whatever the size of the recording.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import numpy as np

from interp.artifacts import Artefact, DocumentField
from interp.errors import ConfigError, MismatchError, NonFiniteError
from interp.geometry.analogies import AnalogySet, WordVectors
from interp.geometry.dimension import IntrinsicDimension, Spectrum, intrinsic_dimension, spectrum
from interp.geometry.points import or_why
from interp.geometry.similarity import CloudDistance, LayerSimilarity, Similarity, compare_clouds, procrustes
from interp.models.hooked import HookedModel
from interp.models.short_name import short_name
from interp.nulls import DRAWS
from interp.progress import Progress
from interp.results import Record, cell
from interp.seeds import derive_seed, make_generator
from interp.view import Facts, View

if TYPE_CHECKING:
    from torch import Tensor

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
class SpaceSettings:
    """Settings that determine the measures of a model's spaces."""

    model: str
    weight_hash: str
    hook_points: tuple[str, ...]
    points: int
    """Tokens per hook point, and points that the intrinsic dimension is measured on."""
    corpus: str
    """Text that the hook points were read on."""
    context_length: int
    """Tokens per context, BOS included; 0 without text."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class SpaceReport(Artefact, kind="space", made_by="geometry space"):
    """Spectrum, anisotropy and intrinsic dimension of each space, and analogies among the embeddings."""

    settings: SpaceSettings
    spectra: Annotated[dict[str, Spectrum], DocumentField("spectra.json")]
    """By space: `embeddings`, then the hook points."""
    dimensions: dict[str, IntrinsicDimension | str]
    """By space; a string gives the reason why there is no estimate."""
    relations: dict[str, AnalogySet | str]

    def view(self) -> View:
        (name, spectrum), *_ = [*self.spectra.items()][::-1]
        yield (
            f"{short_name(self.settings.model)} uses about {spectrum.participation_ratio:.0f} of {spectrum.d} "
            f"directions at {name}; isotropic points {spectrum.isotropic.participation_ratio:.0f}"
        )
        few = list(self.spectra.items())[:4]
        yield Facts(*[(name, f"participation ratio {cell(spectrum.participation_ratio)}") for name, spectrum in few])
        yield from [f"{name}: {spectrum}. {self.dimensions[name]}" for name, spectrum in self.spectra.items()]
        yield from (f"{name}: {relation}" for name, relation in self.relations.items())

    def to_records(self) -> list[Record]:
        """Return one row per space: its measures, each followed by its null."""
        return [_space_row(name, spectrum, self.dimensions[name]) for name, spectrum in self.spectra.items()]


@dataclass(frozen=True, kw_only=True)
class SpaceComparisonSettings:
    """Settings that determine a comparison of spaces."""

    models: tuple[str, ...]
    """One model, or two."""
    weight_hashes: tuple[str, ...]
    hook_points: tuple[str, ...]
    """Empty: the residual stream after every block."""
    points: int
    """Tokens that are compared."""
    batch: int
    """Tokens per batch of CKA."""
    n_shuffles: int
    """Shuffles of rows that Procrustes is compared with."""
    corpus: str
    context_length: int
    """Tokens per context, BOS included."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class SpacePair:
    """Two spaces compared closely."""

    first: str
    second: str
    procrustes: Similarity
    transport: CloudDistance | None
    """None where the widths differ."""


@dataclass(frozen=True, kw_only=True)
class SpaceComparison(Artefact, kind="space_comparison", title="Spaces compared", made_by="geometry compare"):
    """Spaces of one model compared with each other, or with those of a second model.

    Of two models the names of spaces begin with `A ` and `B `.
    """

    settings: SpaceComparisonSettings
    cka: Annotated[LayerSimilarity, DocumentField("cka.json")]
    """CKA of all pairs of spaces."""
    pairs: Annotated[tuple[SpacePair, ...], DocumentField("pairs.json")]

    @property
    def spaces(self) -> tuple[str, ...]:
        """Names of the spaces."""
        return self.cka.hook_points

    def view(self) -> View:
        away = ~np.eye(len(self.spaces), dtype=bool)
        i, j = np.unravel_index(np.where(away, self.cka.cka, np.inf).argmin(), self.cka.cka.shape)
        yield (
            f"Least alike on the same tokens: {self.spaces[i]} and {self.spaces[j]}, CKA {self.cka.cka[i, j]:.2f} "
            f"(shuffled rows at most {np.abs(self.cka.shuffled[away]).max(initial=0):.2f})"
        )
        smallest = min((row["cka"] for row in self.to_records()), default=None)
        yield Facts(("spaces", str(len(self.spaces))), ("smallest CKA", "" if smallest is None else cell(smallest)))
        yield str(self.cka)
        for row in self.to_records():
            transport = row["transport_excess"]
            moved = "" if transport is None else f", W2^2 above its floor {transport:.3g} (p {row['transport_p']:.2g})"
            yield (
                f"{row['first']} and {row['second']}: CKA {row['cka']:.3f} (shuffled {row['cka_null']:.3f}), "
                f"Procrustes residual {row['procrustes']:.3f} (shuffled {row['procrustes_null']:.3f}){moved}"
            )

    def to_records(self) -> list[Record]:
        """Return one row per pair: CKA, Procrustes and optimal transport, each with its null."""
        return [self._row(pair) for pair in self.pairs]

    def _row(self, pair: SpacePair) -> Record:
        at, fit, cloud = (
            (self.spaces.index(pair.first), self.spaces.index(pair.second)),
            pair.procrustes,
            pair.transport,
        )
        row: Record = {"first": pair.first, "second": pair.second, "cka": float(self.cka.cka[at])}
        row |= {"cka_error": float(self.cka.error[at]), "cka_null": float(self.cka.shuffled[at])}
        row |= {"procrustes": fit.value, "procrustes_null": fit.null_range[0], "procrustes_p": fit.p}
        return row | {
            f"transport_{key}": None if cloud is None else getattr(cloud, key)
            for key in ("between", "floor", "excess", "p")
        }


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
                    vectors = values[name].flatten(2)[mine[:, 0] - start, mine[:, 1]]
                    rows[name].append(vectors.float().cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def measure_space(
    model: HookedModel,
    tokens: "Tensor | None" = None,
    hook_points: Sequence[str] = (),
    *,
    n_points: int = 2000,
    seed: int = 0,
    corpus: str = "",
    progress: Progress | None = None,
) -> SpaceReport:
    """Measure the token embeddings, and `n_points` tokens of `tokens [batch, pos]` at each hook point.

    `corpus`, the name of the text, is stored with the result.
    Cost: per space all distances of `n_points` points; for analogies, each pair of words against each other pair over
    the vocabulary. Raises as `read_points`.
    """
    from interp.models.adapter import ordinary_tokens
    from interp.models.identity import model_spec, weight_hash

    spaces = {EMBEDDINGS: model.W_E[ordinary_tokens(model)].detach().float().cpu().numpy()}
    if hook_points:
        if tokens is None:
            raise ConfigError("values at hook points need text to be read on; give tokens")
        spaces |= read_points(model, tokens, hook_points, n_points, seed)
    spectra, dimensions = {}, {}
    for done, (name, points) in enumerate(spaces.items()):
        spectra[name] = spectrum(points, seed=seed)
        dimensions[name] = or_why(lambda points=points: intrinsic_dimension(points, max_points=n_points, seed=seed))
        if progress:
            progress(done + 1, len(spaces) + 1, {"space": name})
    words = WordVectors.of(model)
    relations = {name: or_why(lambda pairs=pairs: _relation(words, pairs, seed)) for name, pairs in RELATIONS.items()}
    if progress:
        progress(len(spaces) + 1, len(spaces) + 1, {"space": "analogies"})
    settings = SpaceSettings(
        model=model_spec(model),
        weight_hash=weight_hash(model),
        hook_points=tuple(spaces)[1:],
        points=n_points,
        corpus=corpus,
        context_length=0 if tokens is None else tokens.shape[1],
        seed=seed,
    )
    return SpaceReport(settings=settings, spectra=spectra, dimensions=dimensions, relations=relations)


def compare_spaces(
    tokens: "Tensor",
    first: HookedModel,
    second: HookedModel | None = None,
    *,
    hook_points: Sequence[str] = (),
    n_points: int = 1024,
    batch: int = 256,
    n_shuffles: int = DRAWS["standard"],
    seed: int = 0,
    corpus: str = "",
    progress: Progress | None = None,
) -> SpaceComparison:
    """Compare the residual stream after every block (or the `hook_points`) of one model, or of two on the same tokens.

    `first` and `second` are the models. `n_points` tokens are read at each hook point.

    CKA, a similarity from 0 to 1, is computed for all pairs of layers, in batches of `batch` tokens. Other measures are
    for neighbouring layers of one model; of two models, for a layer of the first and the layer of the same name in the
    second, or else the one of the largest CKA. Optimal
    transport needs vectors of one width. `corpus`, the name of the text, is stored with the result.
    Raises `MismatchError` for two vocabularies, and as `read_points`.
    """
    import torch

    from interp.models.identity import model_spec, tokenizer_hash, weight_hash

    if second is not None and tokenizer_hash(first) != tokenizer_hash(second):
        raise MismatchError("the two models have different tokenizers, so they cannot read the same tokens")
    models = {"": first} if second is None else {"A ": first, "B ": second}
    spaces: dict[str, np.ndarray] = {}
    for mark, model in models.items():
        read = hook_points or [f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers)]
        clouds = read_points(model, tokens, read, n_points, seed)
        spaces |= {mark + name: points for name, points in clouds.items()}
    order = np.random.default_rng(derive_seed(seed, "order of rows")).permutation(n_points)
    batches = np.split(order, range(batch, n_points, batch))
    parts = ([torch.from_numpy(points[rows]) for points in spaces.values()] for rows in batches)
    names = list(spaces)
    cka = batched_cka(parts, names, seed=seed)
    pairs, close_pairs = [], _close_pairs(names, cka.cka)
    for index, (i, j) in enumerate(close_pairs):
        pairs.append(_closely(names[i], names[j], spaces, n_shuffles, seed))
        if progress:
            progress(index + 1, len(close_pairs), {"pair": names[i]})
    settings = SpaceComparisonSettings(
        models=tuple(model_spec(model) for model in models.values()),
        weight_hashes=tuple(weight_hash(model) for model in models.values()),
        hook_points=tuple(hook_points),
        points=n_points,
        batch=batch,
        n_shuffles=n_shuffles,
        corpus=corpus,
        context_length=tokens.shape[1],
        seed=seed,
    )
    return SpaceComparison(settings=settings, cka=cka, pairs=tuple(pairs))


def _space_row(name: str, spectrum: Spectrum, dimension: IntrinsicDimension | str) -> Record:
    row: Record = {"space": name, "n": spectrum.n, "d": spectrum.d}
    row |= {"cosine": spectrum.cosine_raw, "cosine_centred": spectrum.cosine_centred, "mean_share": spectrum.mean_share}
    row |= {"participation_ratio": spectrum.participation_ratio, "isotropic": spectrum.isotropic.participation_ratio}
    row |= {"components_90": spectrum.dims["90"], "isotropic_90": spectrum.isotropic.dims["90"]}
    estimates = {} if isinstance(dimension, str) else {estimate.estimator: estimate for estimate in dimension.estimates}
    for estimator, key in (("TwoNN", "two_nn"), ("MLE", "mle"), ("local PCA", "local_pca")):
        estimate = estimates.get(estimator)
        row |= {key: estimate and estimate.dimension.estimate, f"{key}_gaussian": estimate and estimate.gaussian}
    return row


def _relation(words: WordVectors, pairs: Sequence[tuple[str, str]], seed: int) -> AnalogySet:
    """Return the accuracy over the pairs whose words are single tokens, each with a leading space."""
    known = set(words.words)
    spaced = [(f" {a}", f" {b}") for a, b in pairs]
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


def _closely(first: str, second: str, spaces: dict[str, np.ndarray], n_shuffles: int, seed: int) -> SpacePair:
    """Return Procrustes and, for equal widths, optimal transport, with their nulls."""
    x, y = spaces[first], spaces[second]
    fit = procrustes(x, y, n_shuffles=n_shuffles, seed=seed)
    order = np.random.default_rng(derive_seed(seed, "halves of tokens")).permutation(len(x))
    left, right = order[: len(x) // 2], order[len(x) // 2 :]  # disjoint tokens, so that no point lies in both clouds
    cloud = None
    if x.shape == y.shape:
        cloud = compare_clouds(x[left], y[right], n_splits=3, n_relabelled=19, max_points=300, seed=seed)
    return SpacePair(first=first, second=second, procrustes=fit, transport=cloud)


def batched_cka(batches: "Iterable[list[Tensor]]", names: list[str], *, seed: int = 0) -> LayerSimilarity:
    """Compute CKA for all pairs from batches, each a list of `[m, d]`, one per name; a smaller last batch is left out.

    Raises `ConfigError` on fewer than two whole batches, and on a batch that does not fit the names or whose row counts
    differ.
    """
    import torch

    products: list[Tensor] = []
    shuffled_products: list[Tensor] = []
    scales: list[float] = []
    kernels: Tensor | None = None
    size = n_rows = 0
    generator = make_generator(seed, "shuffled rows of batches")
    for values in batches:
        _check_batch(values, names)
        size = size or len(values[0])
        if len(values[0]) < size:
            break
        if len(values[0]) > size:
            raise ConfigError(f"expected batches of one size, got {len(values[0])} rows after {size}; split them")
        if size < 4:
            raise ConfigError(f"unbiased HSIC needs batches of 4 rows or more, got {size}")
        scales = scales or [_spread(value) for value in values]  # one scale for all batches, so they weigh the same
        if kernels is None:
            kernels = torch.empty(len(names), size, size, device=values[0].device)
        for kernel, value, scale in zip(kernels, values, scales, strict=True):
            _write_kernel(value, scale, kernel)
        order = torch.randperm(size, generator=generator)
        products.append(_hsics(kernels, kernels))
        shuffled_products.append(_hsics(kernels, _reordered(kernels, order.to(kernels.device))))
        n_rows += size
    if len(products) < 2:
        raise ConfigError(
            f"{len(products)} whole batches of {size} rows; two are needed: record more, or use a smaller batch"
        )
    hsics, shuffled = torch.stack(products), torch.stack(shuffled_products).mean(0)
    if not torch.isfinite(hsics).all():
        raise NonFiniteError("the activations hold NaN or infinity; `workbench verify` checks the recording")
    cka, error = _ratio(hsics)
    scale = hsics.mean(0).diagonal().clamp_min(1e-300).sqrt()
    return LayerSimilarity(
        hook_points=tuple(names),
        cka=cka.numpy(),
        error=error.numpy(),
        shuffled=(shuffled / (scale[:, None] * scale[None])).numpy(),
        n_rows=n_rows,
        batch=size,
        seed=seed,
    )


def _check_batch(values: "list[Tensor]", names: list[str]) -> None:
    if not names or len(values) != len(names):
        raise ConfigError(f"a batch must hold one tensor for each of the {len(names)} names {names}, got {len(values)}")
    shapes = [list(value.shape) for value in values]
    if any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
        raise ConfigError(f"a batch must be [m, d] of the same m items at every hook point, got shapes {shapes}")


def _spread(x: "Tensor") -> float:
    """Return the root mean square length of a centred row; kernels of rows divided by it fit float32."""
    return max(float((x.double() - x.double().mean(0)).square().sum(1).mean().sqrt()), 1e-30)


def _write_kernel(x: "Tensor", scale: float, kernel: "Tensor") -> None:
    """Write the kernel of `x [m, d] / scale` into `kernel [m, m]`, zero diagonal; centring leaves HSIC unchanged."""
    x = x.float()
    x = (x - x.mean(0)).div_(scale)
    kernel.addmm_(x, x.T, beta=0)
    kernel.fill_diagonal_(0)


def _reordered(kernels: "Tensor", order: "Tensor") -> "Tensor":
    """Reorder rows and columns of `kernels [n, m, m]` in one gather."""
    m = len(order)
    return kernels.flatten(1).index_select(1, (order[:, None] * m + order).flatten()).view_as(kernels)


def _hsics(kx: "Tensor", ky: "Tensor") -> "Tensor":
    """Return the unbiased HSIC of every kernel of `kx [n, m, m]` with every one of `ky`: `[n, n]` float64."""
    m = kx.shape[1]
    trace = (kx.flatten(1) @ ky.flatten(1).T).double()
    rows_kx, rows_ky = kx.sum(2).double(), ky.sum(2).double()
    both = rows_kx.sum(1)[:, None] * rows_ky.sum(1)[None] / ((m - 1) * (m - 2))
    return (trace + both - 2 / (m - 2) * rows_kx @ rows_ky.T) / (m * (m - 3))


def _ratio(hsics: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return the CKA of the mean HSIC over batches `[b, n, n]`, and its jackknife standard error."""
    n = len(hsics)
    left_out = _normalised((hsics.sum(0) - hsics) / (n - 1))
    error = ((n - 1) / n * (left_out - left_out.mean(0)).square().sum(0)).sqrt()
    return _normalised(hsics.mean(0)), error


def _normalised(hsic: "Tensor") -> "Tensor":
    diagonal = hsic.diagonal(dim1=-2, dim2=-1)
    if (diagonal <= 0).any():
        raise ConfigError("a hook point has no structure beyond chance at this batch size; use larger batches")
    return hsic / (diagonal[..., :, None] * diagonal[..., None, :]).sqrt()
