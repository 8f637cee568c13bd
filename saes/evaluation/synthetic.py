"""Synthetic activations from a known dictionary, and the share of that dictionary that an SAE recovers.

**Data.** The features of every row and their strengths are known: a row is
`mean + scale * (strengths @ directions + noise)`. The properties that make real activations hard to decompose are
settings (after SynthSAEBench, arXiv 2602.14687):

- superposition: more unit directions than dimensions, spread apart as far as possible;
- Zipf: a few frequent features, many rare ones;
- trees: a child is on only where its parent is on, and at most one child of a parent is on;
- correlation: roots tend to be on together, by a Gaussian copula of low rank;
- magnitude: strengths vary from row to row.

Rates are exact: `rates[i]` is the probability that feature `i` is on, trees and correlations included. Correlations are
between roots; descendants inherit them from their roots.

**Recovery.** Scores of an SAE against the true features, which reconstruction error cannot give. Latents and true
features are matched one to one so that the sum of `|cos|` between decoder rows and true directions is largest (the
Hungarian method). Each latent is then scored as a detector of its matched feature: it predicts "on" where it is active.
Features without a latent count as 0, so that a small dictionary cannot score well on a few. Where two features may have
opposite directions (`SyntheticData.signed`), the cosine replaces `|cos|` throughout.

**Recording** (`write_synthetic`). Synthetic rows are written as a recording, so that the training loop and every verb
read them like those of a model. A context is a document of 64 rows. It has no text (every token is 0) and no model:
`weight_hash` is the hash of the settings and the seed, which determine the true dictionary. `truth.json` holds the
settings, `truth.safetensors` the true directions; `read_synthetic` recomputes them and checks them against the file.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from safetensors.torch import save_file
from torch import Tensor

from interp.artifacts import Draft, as_json, atomic_file, from_json, hash_json, read_json, save_artefact, write_json
from interp.dictionary import Dictionary
from interp.errors import ConfigError, MismatchError, UnknownNameError
from interp.recording.record import recorded
from interp.recording.recorded import RecordingSettings
from interp.recording.rows import load_tensors
from interp.recording.store import Recording
from interp.recording.writer import ComputedShard, ShardLog, write_shard, write_stats
from interp.seeds import make_generator
from interp.text.tokens import ShardText
from saes.evaluation.matching import LatentPairs, best_match, unit
from saes.evaluation.scores import Recovery
from saes.kinds.base import SAE
from saes.kinds.config import check_setting
from saes.training.reconstruction import fraction_unexplained

MAGNITUDES = ("log_normal", "half_normal", "constant")


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Settings of the data. An SAE trains on the defaults in seconds on one core.

    Raises `ConfigError` for a setting out of range.
    """

    n_features: int = 128
    """Number of true features."""

    d: int = 48
    """Dimensions of a row."""

    most_frequent: float = 0.3
    """Probability that the most frequent feature is on."""

    least_frequent: float = 0.01
    """Probability that the rarest feature is on. Between the two, rates fall with the rank to the power of `-zipf`."""

    zipf: float = 0.5
    """Exponent of the fall of rates with rank."""

    n_trees: int = 0
    """Number of trees. Their roots are the most frequent features, followed by their children, generation by
    generation."""

    branching: int = 3
    """Children of every parent in a tree; at most one of them is on."""

    depth: int = 1
    """Generations below a root."""

    correlation: float = 0.0
    """Share of the copula's variance from factors common to all roots: 0 is independent."""

    rank: int = 4
    """Number of common factors."""

    magnitude: Literal["log_normal", "half_normal", "constant"] = "log_normal"
    """Distribution of the strength of a feature that is on; its mean is 1."""

    spread: float = 0.25
    """Sigma of the log-normal distribution."""

    noise: float = 0.01
    """Standard deviation of Gaussian noise in every dimension, in units of the mean strength."""

    mean_norm: float = 2.0
    """Norm of the mean that is added to every row, in units of the mean strength."""

    scale: float = 1.0
    """Factor of all strengths, the noise and the mean."""

    def __post_init__(self) -> None:
        check_setting(self.n_features >= 2, "n_features", "at least 2", self.n_features)
        check_setting(self.d >= 2, "d", "at least 2", self.d)
        rates = 0 < self.least_frequent <= self.most_frequent <= 1
        check_setting(
            rates, "least_frequent, most_frequent", "rising and in (0, 1]", (self.least_frequent, self.most_frequent)
        )
        falls = self.zipf > 0 and self.n_features**-self.zipf < 1
        check_setting(falls, "zipf", "above 0, and large enough that rates fall", self.zipf)
        check_setting(min(self.n_trees, self.depth) >= 0, "n_trees, depth", "at least 0", (self.n_trees, self.depth))
        check_setting(self.branching >= 1, "branching", "at least 1", self.branching)
        check_setting(0 <= self.correlation < 1, "correlation", "at least 0 and below 1", self.correlation)
        check_setting(self.rank >= 1, "rank", "at least 1", self.rank)
        for name in ("spread", "noise", "mean_norm"):
            check_setting(0 <= getattr(self, name) < math.inf, name, "at least 0 and finite", getattr(self, name))
        check_setting(0 < self.scale < math.inf, "scale", "above 0 and finite", self.scale)
        if self.magnitude not in MAGNITUDES:
            raise UnknownNameError("magnitude", self.magnitude, MAGNITUDES)
        if self.in_trees > self.n_features:
            raise ConfigError(
                f"{self.n_trees} trees of {self.branching} branches and depth {self.depth} hold {self.in_trees:,} "
                f"features, but n_features is {self.n_features:,}; raise it, or plant fewer or smaller trees"
            )

    @property
    def in_trees(self) -> int:
        """Number of features that belong to a tree."""
        return self.n_trees * sum(self.branching**level for level in range(self.depth + 1))


class SyntheticRows(NamedTuple):
    """Rows and their true features."""

    x: Float32[Tensor, "n d"]
    """`[n, d]` float32"""
    strengths: Float32[Tensor, "n n_features"]
    """`[n, n_features]` float32: strength of every feature, 0 where it is off"""


class SyntheticData:
    """A known dictionary and the distribution of its features, both determined by `(config, seed)`."""

    signed: ClassVar[bool] = False
    """True where two features may have opposite directions, so that the sign of a cosine matters."""

    def __init__(self, config: SyntheticConfig, *, seed: int = 0):
        self.config, self.seed = config, seed
        generator = make_generator(seed, "synthetic", "dictionary")
        self.directions = _spread_apart(torch.randn(config.n_features, config.d, generator=generator))
        """unit rows, `[n_features, d]`"""
        self.mean = config.scale * config.mean_norm * unit(torch.randn(config.d, generator=generator))
        """`[d]`"""
        self.parents = _parents(config)
        """parent of every feature, -1 for a root: `[n_features]` int64"""
        self.rates = _rates(config, self.parents)
        """probability that each feature is on: `[n_features]` float64"""
        self._factors = unit(torch.randn(self.n_roots, config.rank, generator=generator))

    def __repr__(self) -> str:
        c = self.config
        return f"SyntheticData({c.n_features} features in {c.d} dimensions, L0 {self.l0:.1f}, seed {self.seed})"

    @property
    def n_roots(self) -> int:
        """Number of features without a parent, in trees or outside them."""
        return int((self.parents < 0).sum())

    @property
    def l0(self) -> float:
        """Mean number of features that are on in a row."""
        return float(self.rates.sum())

    def sample(self, n: int, *, generator: torch.Generator) -> SyntheticRows:
        """Draw `n` independent rows. Raises `ConfigError` when `n` is below 1."""
        check_setting(n >= 1, "the number of rows", "at least 1", n)
        config, on = self.config, self._on(n, generator)
        strengths = on * self._magnitudes(on.shape, generator)
        noise = config.noise * torch.randn(n, config.d, generator=generator)
        return SyntheticRows(config.scale * (strengths @ self.directions + noise) + self.mean, config.scale * strengths)

    def batches(self, batch_size: int, *, seed: int = 0, start: int = 0) -> Iterator[SyntheticRows]:
        """Yield batches of rows without end, from batch `start` on; batch `b` depends on `(seed, b)` alone."""
        while True:
            yield self.sample(batch_size, generator=make_generator(seed, "synthetic", "rows", self.seed, start))
            start += 1

    def _on(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw which features are on, `[n, n_features]` bool.

        Roots follow the copula. Siblings share one uniform number, and each is on within its own interval of [0, 1).
        """
        share = self.config.correlation
        noise = torch.randn(n, self.n_roots, generator=generator)
        common = torch.randn(n, self.config.rank, generator=generator) @ self._factors.T
        level = torch.special.ndtr((1 - share) ** 0.5 * noise + share**0.5 * common)
        on = torch.zeros(n, self.config.n_features, dtype=torch.bool)
        roots = self.parents < 0
        on[:, roots] = level < self.rates[roots].float()
        for parent, children in self._families:
            stops = (self.rates[children] / self.rates[parent]).cumsum(0).float()
            drawn = torch.rand(n, 1, generator=generator)
            inside = (drawn < stops) & (drawn >= torch.cat([stops.new_zeros(1), stops[:-1]]))
            on[:, children] = inside & on[:, parent, None]
        return on

    @property
    def _families(self) -> list[tuple[int, Tensor]]:
        """Every parent and its children, older generations first, so that parents are drawn before their children."""
        return [(int(p), (self.parents == p).nonzero().squeeze(1)) for p in self.parents.unique() if p >= 0]

    def _magnitudes(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        config = self.config
        if config.magnitude == "constant":
            return torch.ones(shape)
        normal = torch.randn(shape, generator=generator)
        if config.magnitude == "half_normal":
            return normal.abs() * (torch.pi / 2) ** 0.5
        return (config.spread * normal - config.spread**2 / 2).exp()


def _parents(config: SyntheticConfig) -> Tensor:
    """Return the parent of every feature: trees generation by generation, then the features outside trees."""
    parents, before = [-1] * config.n_trees, range(config.n_trees)
    for _ in range(config.depth if config.n_trees else 0):
        first = len(parents)
        parents += [parent for parent in before for _ in range(config.branching)]
        before = range(first, len(parents))
    return torch.tensor(parents + [-1] * (config.n_features - len(parents)))


def _rates(config: SyntheticConfig, parents: Tensor) -> Tensor:
    """Return rates that fall with rank by Zipf's law; siblings together are at most as frequent as their parent."""
    rank = torch.arange(1, config.n_features + 1, dtype=torch.float64)
    falling = rank**-config.zipf
    falling = (falling - falling[-1]) / (falling[0] - falling[-1])
    rates = config.least_frequent + falling * (config.most_frequent - config.least_frequent)
    for parent in parents.unique():
        if parent >= 0:
            family = parents == parent
            rates[family] *= min(1.0, float(rates[parent] / rates[family].sum()))
    return rates


def _spread_apart(rows: Tensor, steps: int = 100) -> Tensor:
    """Return unit rows, spread apart by gradient steps on the sum of the 4th powers of their cosines.

    Without this, two random directions may be too similar to distinguish. More than 4,096 rows remain random: so many
    features come with many dimensions, where random directions are nearly orthogonal, and their cosines need too much
    memory.
    """
    rows = unit(rows)
    for _ in range(steps if len(rows) <= 4096 else 0):
        cosines = (rows @ rows.T).fill_diagonal_(0)
        gradient = cosines**3 @ rows
        rows = unit(rows - 0.2 * gradient / gradient.norm(dim=1).max().clamp_min(1e-12))
    return rows


FOUND = 0.5
"""Smallest F1 with which a true feature counts as found."""


@torch.no_grad()
def measure_recovery(
    dictionary: Dictionary, data: SyntheticData, *, n_rows: int = 16_384, batch_size: int = 4096, seed: int = 0
) -> Recovery:
    """Score `dictionary` against the true features, on fresh rows from a separate stream (by `seed`).

    `n_rows` fresh rows of `data` are encoded.

    Raises `MismatchError` when its width is not that of the data.
    """
    directions = dictionary.decoder_directions.detach().float().cpu()
    if dictionary.d_in != data.config.d or directions.shape[1] != data.config.d:
        raise MismatchError(
            f"the data have width {data.config.d}, the dictionary reads {dictionary.d_in} and writes "
            f"{directions.shape[1]}; measure it on the data that it was trained on"
        )
    match = best_match(directions, data.directions, absolute=not data.signed)
    counts = _Counts(dictionary, data, directions, match)
    batches, left = data.batches(batch_size, seed=-1 - seed), n_rows  # recordings use seeds from 0 up
    while left > 0:
        rows = next(batches)
        counts.add(rows.x[:left], rows.strengths[:left])
        left -= batch_size
    cosines = unit(directions) @ data.directions.T
    cosines = cosines if data.signed else cosines.abs()
    random = torch.randn(directions.shape, generator=make_generator(seed, "recovery", "random dictionary"))
    return Recovery(
        n_rows=n_rows,
        mcc=float(match.cosines.mean()),
        mcc_random=float(best_match(random, data.directions, absolute=not data.signed).cosines.mean()),
        mmcs=float(cosines.amax(0).mean()),
        uniqueness=len(cosines.argmax(1).unique()) / min(cosines.shape),
        **counts.result(),
    )


class _Counts:
    """Sums over rows of the counts behind `Recovery`, in float64."""

    def __init__(self, dictionary: Dictionary, data: SyntheticData, directions: Tensor, match: LatentPairs):
        self.dictionary, self.match = dictionary, match
        self.along = (directions[match.rows] * data.directions[match.columns]).sum(1)
        """contribution of one unit of a matched latent along its feature"""
        n, d_sae = data.config.n_features, dictionary.d_sae
        self.hits, self.active, self.on = (torch.zeros(n, dtype=torch.float64) for _ in range(3))
        self.fired = torch.zeros(d_sae, dtype=torch.float64)
        self.sum = torch.zeros(data.config.d, dtype=torch.float64)
        self.error = self.square = self.contributed = self.true = 0.0
        self.n = 0

    def add(self, x: Tensor, strengths: Tensor) -> None:
        seen = x.to(self.dictionary.decoder_directions.device)
        acts = self.dictionary.encode(seen)
        recons = self.dictionary.decode(acts)
        if isinstance(self.dictionary, SAE):  # some kinds add terms without latents, for example a skip connection
            recons = self.dictionary.complete(recons, seen)
        acts, recons = acts.cpu(), recons.cpu().double()
        self.fired += (acts > 0).sum(0).double()
        latents, features = acts[:, self.match.rows], strengths[:, self.match.columns]
        both = (latents > 0) & (features > 0)
        self.hits[self.match.columns] += both.sum(0).double()
        self.active[self.match.columns] += (latents > 0).sum(0).double()
        self.on += (strengths > 0).sum(0).double()
        self.contributed += float((latents * self.along * both).double().sum())
        self.true += float((features * both).double().sum())
        x = x.double()
        self.error += float((x - recons).square().sum())
        self.square += float(x.square().sum())
        self.sum += x.sum(0)
        self.n += len(x)

    def result(self) -> dict[str, float]:
        error, square = torch.tensor([self.error, self.square], dtype=torch.float64) / self.n
        mean = self.sum / self.n
        f1 = 2 * self.hits / (self.active + self.on).clamp_min(1)
        return {
            "precision": float((self.hits / self.active.clamp_min(1)).mean()),
            "recall": float((self.hits / self.on.clamp_min(1)).mean()),
            "f1": float(f1.mean()),
            "recovered": float((f1 >= FOUND).double().mean()),
            "true_l0": float(self.on.sum() / self.n),
            "l0": float(self.fired.sum() / self.n),
            "shrinkage": self.contributed / self.true if self.true else float("nan"),
            "dead": float((self.fired == 0).double().mean()),
            "fvu": float(fraction_unexplained(error, square, mean, centre=mean)),
        }


HOOK_POINT = "blocks.0.hook_resid_post"
CONTEXT, SHARD_CONTEXTS = 64, 256
MODEL, TRUTH, TRUE_SETTINGS = "synthetic", "truth.safetensors", "truth.json"


def write_synthetic(
    data: SyntheticData,
    folder: Path,
    *,
    n_rows: int,
    overwrite: bool = False,
) -> Recording:
    """Write at least `n_rows` rows (whole contexts) as a recording at `HOOK_POINT`.

    Rows are float32 and drawn with the seed of the data, shard by shard. Memory holds one shard of 16,384 rows. After
    an interruption the same call continues. Raises `ConfigError` (no rows, or the folder exists), `MismatchError` (an
    unfinished run with other settings).
    """
    if n_rows < 1:
        raise ConfigError(f"n_rows must be at least 1, got {n_rows}")
    folder, name, contexts = Path(folder), HOOK_POINT, -(-n_rows // CONTEXT)
    settings = RecordingSettings(
        model=MODEL,
        weight_hash=_hash(data),
        hook_points=(name,),
        context_length=CONTEXT,
        bos="none",
        dtype="float32",
        n_tokens=n_rows,
        text=None,
    )
    draft = Draft.open(folder, kind="recording", config=as_json(settings), seed=data.seed, overwrite=overwrite)
    log = ShardLog(draft)
    for number, first in enumerate(range(0, contexts, SHARD_CONTEXTS)):
        if number in log:
            continue
        text = _no_text(number, first, min(SHARD_CONTEXTS, contexts - first), last=first + SHARD_CONTEXTS >= contexts)
        rows = next(data.batches(text.n_rows, start=number))
        write_shard(draft, log, ComputedShard(text, {name: rows.x}))
    write_stats(draft, log, [name])
    write_json(draft.path / TRUE_SETTINGS, as_json(data.config))
    with atomic_file(draft.path / TRUTH) as temporary:
        save_file({"directions": data.directions}, temporary)
    artefact = recorded(settings, log.entries, {name: data.config.d}, None, 1)
    save_artefact(artefact, folder, threads=torch.get_num_threads(), draft=draft)
    return Recording(folder)


def read_synthetic(recording: Recording) -> SyntheticData:
    """Return the synthetic data that a recording was drawn from.

    Raises `MismatchError` for a recording of a model, and where the recomputed directions differ from the stored ones.
    """
    if not recording.planted:
        raise MismatchError(
            f"{recording.folder} holds activations of {recording.model}, whose true features are unknown; "
            "recovery can be measured on recordings that `saes.evaluation.synthetic.write_synthetic` wrote"
        )
    path, seed = recording.folder / TRUE_SETTINGS, recording.manifest.seed or 0
    data = SyntheticData(from_json(SyntheticConfig, read_json(path), path), seed=seed)
    directions = load_tensors(recording.folder / TRUTH)["directions"]
    if directions.shape != data.directions.shape or not torch.allclose(directions, data.directions, atol=1e-4):
        raise MismatchError(
            f"{recording.folder} was drawn along other directions than its settings give with this version of torch; "
            "write it again with `write_synthetic`"
        )
    return data


def _no_text(number: int, first: int, n_contexts: int, *, last: bool) -> ShardText:
    shape = (n_contexts, CONTEXT)
    documents = np.arange(first, first + n_contexts, dtype=np.int32)
    return ShardText(
        number=number,
        tokens=np.zeros(shape, np.int32),
        document=np.repeat(documents[:, None], CONTEXT, axis=1),
        position=np.tile(np.arange(CONTEXT, dtype=np.int32), (n_contexts, 1)),
        begins=[(int(n), f"context {n}", "synthetic") for n in documents],
        last=last,
    )


def _hash(data: SyntheticData) -> str:
    return hash_json({"config": asdict(data.config), "seed": data.seed})
