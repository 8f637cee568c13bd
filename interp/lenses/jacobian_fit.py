"""The fit of a Jacobian lens (Gurnee et al. 2026; `interp.lenses.jacobian_lens` says what it is).

    lens = fit_jacobian_lens(model, contexts, heldout, JacobianLensConfig(rounds=30))

One backward pass gives one row of the Jacobian of every layer for each text of a batch: text b gets a one-hot cotangent
on output dimension i_b of the last residual at every position, and the gradient at source position t is row i_b of the
sum over t' >= t. A *round* is one forward pass over `texts` contexts and as many backward passes as give each dimension
to one text; then other contexts follow. TransformerLens replicates one text over the batch and takes all rows from it;
the mean is the same, and here the error of one row is independent of that of the next. Where a processor multiplies
bfloat16 faster, products are taken in it (torch's autocast; residuals and sums stay float32): the error is a few
thousandths of the difference between two texts.

Odd and even rounds are summed apart, so that the agreement of the halves is known. With a draft an interrupted fit
keeps its whole rounds; the same call resumes it, to the same numbers.

Published lenses are read and written too: `J`, `n_prompts`, `source_layers`, `d_model`, `metadata`, the form of
Anthropic's jacobian-lens and of TransformerLens 4.3 (`JacobianLens.save`). `J` has one matrix per block: the derivative
of the last residual in the residual after it. Beside it we write `means` and `gains` by block and `end`, which other
tools pass over; where a file has none they are measured on the text. Checkpoints of a fit (`jacobian_sum`, `n_done`)
are read too. Files are read with `weights_only`: no code in them runs.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from interp.artifacts import Draft, atomic_file
from interp.cache import size_text
from interp.devices import faster_in_bfloat16, free_memory
from interp.errors import ConfigError, CorruptError, MismatchError, MissingError, NonFiniteError
from interp.lenses.jacobian_lens import JacobianLayer, JacobianLens, JacobianLensConfig, JacobianSettings, Products
from interp.lenses.lens import CHECKPOINT, Lens
from interp.lenses.lens_training import N_TEXTS, Reading, autocast, distances, draw_positions, over_texts
from interp.lenses.vocabulary import read_directions
from interp.models.adapter import untrained_model, weight_hash
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec
from interp.models.passes import Capture
from interp.names import lens_hook_points, parse_hook_point
from interp.progress import Progress
from interp.seeds import make_generator
from interp.statistics import Interval

READ = 512
"""random tokens whose read directions measure how well the halves agree"""
NULL_SOURCES = 12
"""positions of a context that the Jacobian of an untrained model is taken over: it varies little, and costs a round"""
N_MEANS, MEANS_AT_ONCE = 256, 16
"""contexts that the means are taken over, and of them in memory at a time"""
N_GAIN, GAINS, CLOSER = 128, (0.0, 0.5, 1.0, 2.0, 4.0), (0.8, 1.0, 1.25)
"""positions that the gains are fitted on, gains that are measured there (0 is the mean alone), and then factors of the
best"""


def fit_jacobian_lens(
    model: HookedModel,
    contexts: Int[Tensor, "n pos"],
    heldout: Int[Tensor, "m heldout_pos"],
    config: JacobianLensConfig | None = None,
    *,
    source: str = "",
    tuned: Lens | None = None,
    draft: Callable[[JacobianSettings], Draft] | None = None,
    progress: Progress | None = None,
) -> JacobianLens:
    """Fit a lens and measure it on held-out tokens.

    Args:
        model: the model that it reads.
        contexts: tokens that the Jacobian is taken on, `[n, pos]`; they are read again once all have been read.
        heldout: tokens to measure on, `[m, heldout_pos]`.
        config: the settings of the fit.
        source: origin of the tokens.
        tuned: a tuned lens of the same weights, to be measured too.
        draft: returns the work in progress of some settings, with the sums of an earlier run if there are any.
        progress: called after every round, with the agreement of the halves.

    Raises `ConfigError` for too few or too short contexts and too little memory, `NonFiniteError` for a gradient that
    is not finite, and what `draft` raises.
    """
    settings = _settings(model, contexts, heldout, config or JacobianLensConfig(), source)
    names = settings.hook_points(model.cfg.n_layers)
    fit = _Fit(model, contexts, settings, names, None if draft is None else draft(settings))
    fit.run(progress)
    if fit.draft is not None:
        (fit.draft.path / CHECKPOINT).unlink(missing_ok=True)
    jacobians = dict(zip(names, fit.mean(), strict=True))
    agreement = dict(zip(names, fit.agreement().tolist(), strict=True))
    return _measured(model, jacobians, agreement, fit.done, settings, contexts, heldout, tuned)


def import_jacobian_lens(
    path: Path,
    model: HookedModel,
    contexts: Int[Tensor, "n pos"],
    heldout: Int[Tensor, "m heldout_pos"],
    config: JacobianLensConfig | None = None,
    *,
    tuned: Lens | None = None,
) -> JacobianLens:
    """Return the lens of a published file (`interp.lenses.jacobian_fit`), measured as one that was fitted.

    `contexts` serve its null, one round on an untrained model, and its means and gains where the file has none. A
    published file does not say which weights it was fitted on: it is taken for the model's, and the KL against its
    nulls shows whether it is. Raises `MismatchError` for another width or number of blocks, and what `read_published`
    and `fit_jacobian_lens` raise.
    """
    published = read_published(path)
    check_fits(published, model)
    blocks = lens_hook_points(model.cfg.n_layers)[1:]
    jacobians = {blocks[layer]: jacobian for layer, jacobian in published.jacobians.items() if layer < len(blocks) - 1}
    config = replace(config or JacobianLensConfig(), layers=tuple(layer + 1 for layer in published.jacobians))
    settings = _settings(model, contexts, heldout, config, path.name)
    agreement = dict.fromkeys(jacobians, math.nan)
    affine = published.affine
    if affine is not None:
        means = {blocks[layer]: mean for layer, mean in affine.means.items()}
        affine = Affine(means, affine.end, {blocks[layer]: gain for layer, gain in affine.gains.items()})
    return _measured(model, jacobians, agreement, published.n_prompts, settings, contexts, heldout, tuned, affine)


def _settings(
    model: HookedModel, contexts: Tensor, heldout: Tensor, config: JacobianLensConfig, source: str
) -> JacobianSettings:
    """Return the settings of a fit. Raises `ConfigError` for too little text or memory."""
    if len(contexts) < 2 or len(heldout) < 2 or contexts.shape[1] < config.skip + 2:
        raise ConfigError(
            f"expected at least 2 contexts of {config.skip + 2} tokens to fit on and 2 held out, got "
            f"{list(contexts.shape)} and {list(heldout.shape)}; use more text, or a lower skip"
        )
    origin = {"model": model_spec(model), "weight_hash": weight_hash(model), "source": source}
    chosen: dict[str, Any] = asdict(config) | {"products": products_of(model, config)}
    settings = JacobianSettings(**origin, context_length=contexts.shape[1], **chosen)
    check_memory(model, settings, len(config.hook_points(model.cfg.n_layers)))
    return settings


def products_of(model: HookedModel, config: JacobianLensConfig) -> Products:
    """Return the dtype of products: the one asked for, or the faster."""
    if config.products is not None:
        return config.products
    plain = model.cfg.dtype == torch.float32 and str(model.cfg.device) == "cpu"
    return "bfloat16" if plain and faster_in_bfloat16(torch.ones(512, model.cfg.d_model)) else "float32"


def batches_of(d_model: int, texts: int) -> tuple[int, int]:
    """Return the texts of a batch and the backward passes of a round: each dimension gets one text.

    >>> batches_of(576, 48)
    (48, 12)
    >>> batches_of(64, 48)
    (32, 2)
    """
    n_passes = -(-d_model // texts)
    return -(-d_model // n_passes), n_passes


def memory_of(model: HookedModel, settings: JacobianSettings, n_layers: int) -> int:
    """Return the bytes that a round needs at a time: values kept for the backward passes, and the sums."""
    cfg = model.cfg
    d, n_texts = cfg.d_model, batches_of(cfg.d_model, settings.texts)[0]
    per_token = 20 * d + 5 * (cfg.d_mlp or 4 * d) + 4 * (cfg.n_heads or 0) * settings.context_length
    width = 2.4 if settings.products == "bfloat16" else 4.0  # measured: residuals and norms stay float32
    return int(n_texts * settings.context_length * cfg.n_layers * per_token * width + 12 * n_layers * d * d)


def check_memory(model: HookedModel, settings: JacobianSettings, n_layers: int) -> None:
    """Raise `ConfigError`, before anything runs, where a round does not fit into the free memory."""
    needed, free = memory_of(model, settings, n_layers), free_memory(str(model.cfg.device))
    if free is not None and needed > free:
        raise ConfigError(
            f"a round of {settings.texts} texts needs about {size_text(needed)}, and {size_text(free)} are free; "
            f"use fewer texts in a round (--texts {max(1, settings.texts * free // needed // 2)}), or fewer --layers"
        )


class _Rows(NamedTuple):
    """A pass over some texts, from which rows of their Jacobians are taken."""

    values: list[Tensor]
    """residuals `[texts, pos, d_model]` of the layers, then of the last"""
    positions: slice

    def rows(self, dims: Int[Tensor, " texts"], *, last: bool) -> list[Float32[Tensor, "texts d_model"]]:
        """Return row `dims[b]` of the Jacobian of text b, for every layer; -1 for no row."""
        target = self.values[-1]
        cotangent = torch.zeros_like(target)
        used = torch.arange(len(dims))[dims >= 0]
        cotangent[used, self.positions, dims[used]] = 1.0
        gradients = torch.autograd.grad(target, self.values[:-1], cotangent, retain_graph=not last)
        return [gradient[:, self.positions].float().mean(1) for gradient in gradients]


def run_texts(model: HookedModel, tokens: Int[Tensor, "texts pos"], names: list[str], skip: int) -> _Rows:
    """Run texts up to the last residual, differentiable in the residuals of `names`, which are in order.

    The first `skip` positions and the last one are neither sources nor targets, as in TransformerLens.
    """
    every = [*names, lens_hook_points(model.cfg.n_layers)[-1]]
    with Capture(model, every, gradients=True) as capture:
        values = capture(tokens.to(model.cfg.device))
    return _Rows([values[name] for name in every], slice(skip, tokens.shape[1] - 1))


@contextlib.contextmanager
def _differentiable(model: HookedModel, products: str) -> Iterator[None]:
    """Keep parameters out of the graph, and multiply in the dtype that was chosen, within the block."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        with autocast(model, products):
            yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


class _Fit:
    """One fit: opened or resumed, advanced round by round."""

    def __init__(
        self,
        model: HookedModel,
        contexts: Tensor,
        settings: JacobianSettings,
        names: list[str],
        draft: Draft | None = None,
    ):
        self.model, self.contexts, self.settings, self.names, self.draft = model, contexts, settings, names, draft
        d = model.cfg.d_model
        self.n_texts, self.n_passes = batches_of(d, settings.texts)
        self.sums = torch.zeros(2, len(names), d, d)
        """sums over even and odd rounds"""
        self.done = 0
        """whole rounds"""
        self._resume()

    @cached_property
    def read(self) -> Tensor:
        """Read directions `[READ, d_model]` of random tokens."""
        generator = make_generator(self.settings.seed, "read directions")
        return read_directions(self.model, torch.randperm(self.model.cfg.d_vocab, generator=generator)[:READ])

    def run(self, progress: Progress | None) -> None:
        """Run all rounds that are left, and keep the sums after each."""
        while self.done < self.settings.rounds:
            self.round()
            self.checkpoint()
            if progress:
                agreement = float(self.agreement().mean())  # NaN until both halves have a round
                progress(self.done, self.settings.rounds, {} if math.isnan(agreement) else {"agreement": agreement})

    def round(self) -> None:
        """Add one row per output dimension and layer, each from one of the next texts."""
        d, k = self.model.cfg.d_model, self.n_texts
        order = torch.randperm(len(self.contexts), generator=make_generator(self.settings.seed, "jacobian lens"))
        at = torch.arange(self.done * k, (self.done + 1) * k) % len(order)
        added = torch.zeros_like(self.sums[0])
        with _differentiable(self.model, self.settings.products or "float32"):
            texts = run_texts(self.model, self.contexts[order[at]], self.names, self.settings.skip)
            for i in range(self.n_passes):
                dims = torch.arange(i, i + k * self.n_passes, self.n_passes)
                dims = torch.where(dims < d, dims, -1)
                rows = torch.stack(texts.rows(dims, last=i == self.n_passes - 1)).cpu()
                added[:, dims[dims >= 0]] = rows[:, dims >= 0]
        if not added.isfinite().all():
            raise NonFiniteError(
                f"the gradient of round {self.done + 1} is not finite; use --products float32, or float32 weights"
            )
        self.sums[self.done % 2] += added
        self.done += 1

    def mean(self) -> Tensor:
        """Return the Jacobians `[n_layers, d_model, d_model]`."""
        return self.sums.sum(0) / self.done

    def agreement(self) -> Tensor:
        """Return the mean cosine `[n_layers]` of the read directions of the halves; NaN after one round."""
        if self.done < 2:
            return torch.full((len(self.names),), torch.nan)
        directions = self.read @ self.sums  # [2, n_layers, READ, d_model]; their lengths do not matter
        return torch.nn.functional.cosine_similarity(*directions, dim=-1).mean(-1)

    def checkpoint(self) -> None:
        """Write the sums, if there is a draft."""
        from safetensors.torch import save_file

        if self.draft is None:
            return
        with atomic_file(self.draft.path / CHECKPOINT) as temporary:
            save_file({"sums": self.sums}, temporary, metadata={"rounds": str(self.done)})
        self.draft.update(step=self.done, steps=self.settings.rounds)

    def _resume(self) -> None:
        from safetensors import safe_open

        if self.draft is not None and (path := self.draft.path / CHECKPOINT).exists():
            with safe_open(path, "pt") as file:
                self.done, self.sums = int(file.metadata()["rounds"]), file.get_tensor("sums")


Layer = TypeVar("Layer", str, int)
"""hook point, or number of a block"""


class Affine(NamedTuple, Generic[Layer]):
    """Means and gains that turn the Jacobian into a reading of residuals; see `interp.lenses.jacobian_lens`."""

    means: dict[Layer, Tensor]
    """mean residual `[d_model]` of each layer"""
    end: Tensor
    """mean residual `[d_model]` after the last block"""
    gains: dict[Layer, float]

    def read(self, point: Layer, resid: Tensor, jacobian: Tensor) -> Tensor:
        """Return residuals `[n, d_model]` of a hook point as they are expected after the last block."""
        mean, end = self.means[point].to(resid.device), self.end.to(resid.device)
        return end + self.gains[point] * ((resid - mean) @ jacobian.to(resid.device).T)


def mean_residuals(
    model: HookedModel, names: list[str], contexts: Int[Tensor, "n pos"], settings: JacobianSettings
) -> Affine[str]:
    """Return the means of hook points and of the end over some of the contexts, without gains."""
    end = lens_hook_points(model.cfg.n_layers)[-1]
    order = torch.randperm(len(contexts), generator=make_generator(settings.seed, "means of a lens"))[:N_MEANS]
    sums = {name: torch.zeros(model.cfg.d_model, dtype=torch.float64) for name in (*names, end)}
    with torch.no_grad(), Capture(model, list(sums)) as capture:
        for rows in order.split(MEANS_AT_ONCE):
            values = capture(contexts[rows].to(model.cfg.device))
            for name, value in sums.items():
                value += values[name][:, max(1, settings.skip) :].float().mean(1).sum(0).double().cpu()
    means = {name: (value / len(order)).float() for name, value in sums.items()}
    return Affine(means, means[end], {})


def fit_gains(
    model: HookedModel,
    jacobians: Mapping[str, Tensor],
    affine: Affine[str],
    contexts: Int[Tensor, "n pos"],
    settings: JacobianSettings,
) -> Affine[str]:
    """Return the means with the gain of each layer that brings it nearest to the output; 0 where chance may do so."""
    names = list(jacobians)
    affine = affine._replace(gains=dict.fromkeys(names, 0.0))
    options = {"n_contexts": N_TEXTS, "seed": settings.seed, "stream": ("gains of a lens", 0)}
    sample = draw_positions(model, contexts, names, N_GAIN, **options)

    def reading(gains: dict[str, float]) -> Reading:
        scaled = affine._replace(gains=gains)
        return lambda point, resid: scaled.read(point, resid, jacobians[point])

    def kl(*gains: dict[str, float]) -> dict[str, Tensor]:
        readings = {str(i): reading(of) for i, of in enumerate(gains)}
        readings["mean"] = lambda _, resid: affine.end[None].to(resid.device)
        measured = distances(model, sample, readings, products=settings.products or "float32")
        return {
            name: torch.stack([of["mean"], *(of[str(i)] for i in range(len(gains)))]) for name, of in measured.items()
        }

    curves = kl(*(dict.fromkeys(names, gain) for gain in GAINS[1:]))
    best = {name: _least(GAINS, curve) for name, curve in curves.items()}
    for name, (mean, *near) in kl(*({name: factor * best[name] for name in names} for factor in CLOSER)).items():
        if best[name] > 0 and over_texts(mean - near[1], sample.text).low > 0:
            affine.gains[name] = _least([factor * best[name] for factor in CLOSER], torch.stack(near))
    return affine


def _least(gains: Sequence[float], kl: Float32[Tensor, "gain n"]) -> float:
    """Return the gain where the polynomial through the least mean KL and two others on each side is least.

    It is one in `g / (1 + g)`: the final norm makes large gains alike, and the curve levels off.
    """
    mean = kl.mean(1).double().numpy()
    least = int(mean.argmin())
    near = slice(max(0, least - 2), least + 3)
    tried = np.array(gains[near])
    fine = np.linspace(tried[0], tried[-1], 801)
    curve = np.polyfit(tried / (1 + tried), mean[near], len(tried) - 1)
    return float(fine[np.polyval(curve, fine / (1 + fine)).argmin()])


def _measured(
    model: HookedModel,
    jacobians: dict[str, Tensor],
    agreement: dict[str, float],
    n_texts: int,
    settings: JacobianSettings,
    contexts: Tensor,
    heldout: Tensor,
    tuned: Lens | None,
    affine: Affine[str] | None = None,
) -> JacobianLens:
    """Measure a lens with the other lenses and its nulls, and return it as it is stored."""
    names, products = list(jacobians), settings.products or "float32"
    null = _Fit(untrained_model(model, settings.seed), contexts[:, : settings.skip + NULL_SOURCES + 1], settings, names)
    null.round()
    untrained, generator = dict(zip(names, null.mean(), strict=True)), make_generator(settings.seed, "shuffled")
    stored = {name: jacobian.half() for name, jacobian in jacobians.items()}
    matrices = torch.stack(list(stored.values())).numpy()
    if not np.isfinite(matrices).all():
        raise NonFiniteError("an entry of the Jacobian is beyond float16; fit fewer --layers")
    read = {name: jacobian.float() for name, jacobian in stored.items()}
    affine = affine or fit_gains(model, read, mean_residuals(model, names, contexts, settings), contexts, settings)
    means, end, gains = affine

    def shuffled(point: str, resid: Tensor) -> Tensor:
        return affine.read(point, resid[torch.randperm(len(resid), generator=generator).to(resid.device)], read[point])

    readings: dict[str, Reading] = {
        "logit": lambda _, resid: resid,
        "uncentred": lambda point, resid: resid @ read[point].to(resid.device).T,
        "jacobian": lambda point, resid: affine.read(point, resid, read[point]),
        "mean": lambda _, resid: end[None].to(resid.device),
        "untrained": lambda point, resid: affine.read(point, resid, untrained[point]),
        "shuffled": shuffled,
    }
    if tuned is not None:
        tuned.check_model(model)
        readings["tuned"] = tuned.translate
    options = {"n_contexts": N_TEXTS, "seed": settings.seed, "stream": ("jacobian lens", 0)}
    sample = draw_positions(model, heldout, names, settings.heldout_positions, **options)
    kl = distances(model, sample, readings, products=products)

    def layer(name: str) -> JacobianLayer:
        of = kl[name]
        measured = {f"kl_{reading}": over_texts(of[reading], sample.text) for reading in of}
        below = {f"below_{x}": over_texts(of[x] - of["jacobian"], sample.text) for x in ("logit", "mean")}
        unmeasured = {"kl_tuned": Interval(math.nan, math.nan, math.nan)}
        intervals = unmeasured | measured | below
        return JacobianLayer(hook_point=name, agreement=agreement[name], gain=gains[name], **intervals)

    layers = tuple(layer(name) for name in names)
    rows = torch.stack([means[name] for name in names]).numpy()
    return JacobianLens(
        settings=settings, n_texts=n_texts, layers=layers, jacobians=matrices, means=rows, end=end.numpy()
    )


class PublishedLens(NamedTuple):
    """Contents of a published file."""

    jacobians: dict[int, Tensor]
    """block -> `[d_model, d_model]` float32"""
    n_prompts: int
    metadata: dict[str, Any]
    affine: Affine[int] | None = None
    """means and gains by block, if the file has them"""


def read_published(path: Path) -> PublishedLens:
    """Read a published file. Raises `MissingError`, and `CorruptError` for one of another form."""
    if not path.is_file():
        raise MissingError(f"no file at {path}")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors
        raise CorruptError(
            f"cannot read {path} as a Jacobian lens, a .pt file with nothing but tensors, numbers and text: {error}"
        ) from error
    try:
        return _published(contents)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CorruptError(
            f"{path} is not a Jacobian lens: expected square matrices by layer under 'J', "
            f"{type(error).__name__}: {error}"
        ) from error


def _published(contents: Mapping[str, Any]) -> PublishedLens:
    summed = "J" not in contents
    n = int(contents["n_done"] if summed else contents.get("n_prompts", 0))
    matrices = {int(layer): matrix.float() for layer, matrix in contents["jacobian_sum" if summed else "J"].items()}
    if (summed and n < 1) or not matrices:
        raise ValueError(f"{len(matrices)} matrices over {n} prompts")
    d = len(next(iter(matrices.values())))
    for layer, matrix in matrices.items():
        if matrix.shape != (d, d) or not matrix.isfinite().all():
            raise ValueError(f"the matrix of layer {layer} is {list(matrix.shape)}, or not finite")
    metadata = dict(contents.get("metadata") or {})
    metadata |= {key: contents[key] for key in ("model_name", "target_layer") if key in contents}
    affine = None
    if "gains" in contents:
        means = {int(layer): mean.float() for layer, mean in contents["means"].items()}
        affine = Affine(means, contents["end"].float(), {int(k): float(gain) for k, gain in contents["gains"].items()})
        vectors = torch.stack([*means.values(), affine.end])
        if (
            vectors.shape[1] != d
            or not vectors.isfinite().all()
            or not means.keys() == affine.gains.keys() >= matrices.keys()
        ):
            raise ValueError(f"means and gains are not of width {d} and of the layers of J, or not finite")
    return PublishedLens({k: m / n if summed else m for k, m in sorted(matrices.items())}, n, metadata, affine)


def check_fits(published: PublishedLens, model: HookedModel) -> None:
    """Raise `MismatchError` for a lens of another width, of more blocks, or that ends before the last block."""
    cfg, layers = model.cfg, list(published.jacobians)
    width = len(published.jacobians[layers[0]])
    target = published.metadata.get("target_layer", cfg.n_layers - 1)
    if width != cfg.d_model or not 0 <= layers[0] <= layers[-1] < cfg.n_layers or target != cfg.n_layers - 1:
        raise MismatchError(
            f"the lens has blocks {layers[0]} to {layers[-1]} of width {width} and ends after block {target}; this "
            f"model has {cfg.n_layers} blocks of width {cfg.d_model}"
        )


def write_published(lens: JacobianLens, path: Path) -> None:
    """Write a lens as a published file; the embedding's Jacobian is left out, as it holds blocks only."""
    blocks = {
        parse_hook_point(layer.hook_point).layer or 0: i
        for i, layer in enumerate(lens.layers)
        if layer.hook_point.endswith("hook_resid_post")
    }
    metadata = {
        "model_name": lens.settings.model,
        "weight_hash": lens.settings.weight_hash,
        "corpus": lens.settings.source,
        "max_seq_len": lens.settings.context_length,
        "skip_first_positions": lens.settings.skip,
    }
    contents = {
        "J": {block: torch.from_numpy(lens.jacobians[i]) for block, i in blocks.items()},
        "means": {block: torch.from_numpy(lens.means[i]) for block, i in blocks.items()},
        "gains": {block: lens.layers[i].gain for block, i in blocks.items()},
        "end": torch.from_numpy(lens.end),
        "n_prompts": lens.n_texts,
        "source_layers": sorted(blocks),
        "d_model": lens.jacobians.shape[-1],
        "metadata": metadata,
    }
    with atomic_file(path) as temporary:
        torch.save(contents, temporary)
