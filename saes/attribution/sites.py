"""Sites where SAEs decompose a model's values, prompts with a metric, and traces of the sites on the prompts.

**Sites.** A site is an SAE at the hook points that it reads and writes. It decomposes the value there:

    value = features + rest + error

`features` is the sum of the active features' contributions. `rest` is the output of the SAE without any feature
(`b_dec`, a skip connection, a token's own mean and scale). `error` is the reconstruction error. A transcoder reads `x`
at one hook point and writes at another; the value that it writes is decomposed. The sum is exact, so that each part can
be replaced alone. Activations are sparse, `[n_tokens, k_max]`: nothing here is `[batch, pos, d_sae]`.

**Prompts**, with or without corrupted counterparts:

    MeasuredPrompts.of_task(task)                                         # clean and corrupted pairs
    MeasuredPrompts.of_text(model, "The capital of France is", " Paris")  # one prompt, the log-probability of one token

**Traces**: values at every site on the prompts and in the baseline, decomposed. The baseline is the corrupted prompt,
or without one the SAE with all features and its error set to zero.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from interp.dictionary import SparseActs
from interp.errors import ConfigError, MismatchError, PromptError
from interp.models.adapter import Hook, available_hook_points, run_with_hooks
from interp.models.generation import prompt_tokens
from interp.models.hooked import HookedModel
from interp.models.identity import tokenizer_of
from interp.models.passes import read_hook
from interp.names import canonical_hook_point, check_hook_points
from interp.patching.metrics import LogitDiff, LogProb, Metric
from interp.patching.task import Task
from saes.kinds.base import CHUNK_VALUES, SAE

Replace = Callable[[Tensor, Tensor], Tensor]
"""Replacement at a site: `replace(x, value)` returns the new value, given those that it reads and would write."""


class DecomposedValue(NamedTuple):
    """Decomposed value at a site; rows are tokens, `n = batch * pos`."""

    acts: SparseActs
    """`[n, k_max]`"""
    error: Float[Tensor, "n d_out"]
    """`[n, d_out]`"""
    rest: Float[Tensor, "n d_out"]
    """`[n, d_out]`"""


class NonzeroActivations(NamedTuple):
    """Nonzero activations: `value[i]` of feature `feature[i]` on token `row[i]`, sorted by row."""

    row: Int64[Tensor, " m"]
    """`[m]` int64"""
    feature: Int64[Tensor, " m"]
    """`[m]` int64"""
    value: Float[Tensor, " m"]
    """`[m]`"""

    @classmethod
    def of(cls, acts: SparseActs) -> "NonzeroActivations":
        """Return the nonzero activations."""
        row, slot = acts.values.nonzero(as_tuple=True)
        return cls(row, acts.indices[row, slot], acts.values[row, slot])


@dataclass(frozen=True, eq=False)
class SAESite:
    """One SAE at its hook points in one model."""

    sae: SAE
    reads: str
    """hook point that it reads"""
    writes: str
    """hook point of the value that it reconstructs"""

    def decompose(
        self,
        x: Float[Tensor, "batch pos d_in"],
        value: Float[Tensor, "batch pos d_out"],
        mask: Bool[Tensor, "batch pos"],
    ) -> DecomposedValue:
        """Decompose `value [batch, pos, d_out]`, given the input `x [batch, pos, d_in]` of the SAE.

        Where `mask [batch, pos]` is False (BOS, padding) there are no features and no error: all of the value is rest.
        """
        x, inside = x.detach(), mask.flatten()[:, None].to(x.device)
        acts = self.sae.encode_sparse(x.flatten(0, 1))
        acts = SparseActs(acts.values * inside, acts.indices.long())
        rest = self.rest(x).flatten(0, 1)
        flat = value.detach().flatten(0, 1).to(rest.dtype)
        error = (flat - self.features(acts, x).flatten(0, 1) - rest) * inside
        return DecomposedValue(acts, error, torch.where(inside, rest, flat))

    def rest(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Return the output of the SAE without any feature, `[..., d_out]`; differentiable in `x [..., d_in]`."""
        return self.sae.complete(self.sae.b_dec.expand(*x.shape[:-1], -1), x.to(self.sae.W_dec.dtype))

    def features(self, acts: SparseActs, x: Float[Tensor, "batch pos d_in"]) -> Float[Tensor, "batch pos d_out"]:
        """Return the sum of the contributions of `acts [batch * pos, k_max]`: `[batch, pos, d_out]`."""
        added = (self.sae.decode_sparse(acts) - self.sae.b_dec).unflatten(0, x.shape[:2])
        return self.add(added, x)

    def add(self, direction: Tensor, x: Tensor) -> Tensor:
        """Return the change of the value when `direction [..., d_out]` is added to the output of the decoder.

        It is the direction itself, except for SAEs of normalised tokens, which multiply by the token's scale.
        """
        bias = self.sae.b_dec.expand_as(direction)
        x = x.to(self.sae.W_dec.dtype)
        return self.sae.complete(bias + direction, x) - self.sae.complete(bias, x)

    @torch.enable_grad()
    def pull_back(
        self, gradient: Float[Tensor, "batch pos d_out"], x: Float[Tensor, "batch pos d_in"]
    ) -> Float[Tensor, "batch pos d_out"]:
        """Return the gradient at the output of the decoder, given that at the value; both `[batch, pos, d_out]`."""
        at = self.sae.b_dec.expand_as(gradient).detach().clone().requires_grad_()
        value = self.sae.complete(at, x.detach().to(self.sae.W_dec.dtype))
        return torch.autograd.grad(value, at, gradient.to(value.dtype))[0]

    def along(self, entries: NonzeroActivations, pulled: Float[Tensor, "n d_out"]) -> Float[Tensor, " m"]:
        """Return the gradient with respect to each activation, `[m]`, given `pulled [n, d_out]` at the decoder."""
        gradient = torch.empty_like(entries.value)
        for part in _chunks(len(gradient), self.sae.d_out):
            directions = self.sae.W_dec[entries.feature[part]]
            gradient[part] = torch.linalg.vecdot(directions, pulled[entries.row[part]].to(directions.dtype))
        return gradient


def open_sites(model: HookedModel, saes: Sequence[SAE]) -> list[SAESite]:
    """Return the sites of several SAEs of one model, in the order in which the model computes the written values.

    `saes` may read and write at different hook points.

    Raises `UnknownNameError` for a hook point that the model lacks, `ConfigError` for a crosscoder and for two SAEs
    that write at one hook point, `MismatchError` for a width that is not the model's.
    """
    if not saes:
        raise ConfigError("at least one SAE is needed, got none; name one that was trained on this model")
    sites = [_site(model, sae) for sae in saes]
    names = [site.writes for site in sites]
    if len(set(names)) < len(names):
        raise ConfigError(f"two SAEs write at one hook point ({', '.join(names)}); choose one of them")
    widths: dict[str, int] = {}

    def note(name: str) -> Hook:
        def hook(value: Tensor, hook: object) -> None:
            widths.setdefault(name, value.shape[-1])

        return hook

    hook_points = list(dict.fromkeys([*(site.reads for site in sites), *names]))
    with torch.no_grad():
        run_with_hooks(
            model, torch.zeros(1, 2, dtype=torch.long, device=model.cfg.device), [(n, note(n)) for n in hook_points]
        )
    for site in sites:
        for name, d in ((site.reads, site.sae.d_in), (site.writes, site.sae.d_out)):
            if widths[name] != d:
                raise MismatchError(
                    f"{name} has width {widths[name]} in this model, {site.sae} expects {d}; choose an SAE of the model"
                )
    order = list(widths)
    return sorted(sites, key=lambda site: order.index(site.writes))


def _site(model: HookedModel, sae: SAE) -> SAESite:
    if len(sae.hook_points) > 1:
        raise ConfigError(f"{sae} reads several hook points; choose SAEs that read one hook point each")
    reads, writes = (canonical_hook_point(name) for name in (sae.hook_point, sae.hook_point_out or sae.hook_point))
    check_hook_points([reads, writes], available_hook_points(model), model.cfg.n_layers)
    return SAESite(sae, reads, writes)


def run_sites(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    sites: Sequence[SAESite],
    replace: Sequence[Replace | None],
    hooks: Sequence = (),
) -> Float[Tensor, "batch _ d_vocab"]:
    """Return the logits of a run in which the value at each site is replaced; a replacement of None leaves it.

    Replacements receive values in the dtype of the SAE, and their results are cast to the dtype of the model. `hooks`
    are additional `(name, hook)` pairs.
    """
    all_hooks: list[tuple[str, Hook]] = []
    for site, change in zip(sites, replace, strict=True):
        if change is not None:
            all_hooks += _site_hooks(site, change)
    return run_with_hooks(model, tokens.to(model.cfg.device), [*all_hooks, *hooks])


def _site_hooks(site: SAESite, replace: Replace) -> list[tuple[str, Hook]]:
    read: dict[str, Tensor] = {}
    dtype = site.sae.W_dec.dtype

    def reads(value: Tensor, hook: object) -> None:
        read["x"] = value.to(dtype)

    def writes(value: Tensor, hook: object) -> Tensor:
        output = value.to(dtype)
        x = output if site.reads == site.writes else read["x"]
        return replace(x, output).to(value.dtype)

    return [(site.writes, writes)] if site.reads == site.writes else [(site.reads, reads), (site.writes, writes)]


def note_values(store: dict[str, tuple[Tensor, Tensor]], name: str) -> Replace:
    """Return a replacement that changes nothing and stores `(x, value)` as `store[name]`."""

    def replace(x: Tensor, value: Tensor) -> Tensor:
        store[name] = (x.detach(), value.detach())
        return value

    return replace


def _chunks(n: int, per_row: int) -> list[slice]:
    rows = max(1, CHUNK_VALUES // max(1, per_row))
    return [slice(start, min(n, start + rows)) for start in range(0, n, rows)]


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredPrompts:
    """Prompts with a metric of their logits."""

    name: str
    tokens: Int64[Tensor, "n pos"]
    """`[n, pos]` int64, padded on the right"""
    lengths: Int[Tensor, " n"]
    """`[n]`: tokens of each prompt without padding"""
    at: Int[Tensor, "n n_read"]
    """`[n, n_read]`: positions whose logits the metric reads"""
    metric: Metric
    corrupt: Int64[Tensor, "n pos"] | None = None
    """`[n, pos]`: corrupted prompts as the baseline; None: the baseline sets all features and the error to zero"""

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of_task(cls, task: Task) -> "MeasuredPrompts":
        """Return the clean and corrupted pairs of a task."""
        return cls(
            name=task.name,
            tokens=task.clean,
            lengths=task.lengths,
            at=task.at,
            metric=task.metric,
            corrupt=task.corrupt,
        )

    @classmethod
    def of_text(
        cls, model: HookedModel, text: str, target: str, wrong: str | None = None, *, corrupt: str | None = None,
        chat: bool = False,
    ) -> "MeasuredPrompts":  # fmt: skip
        """Return one prompt, BOS first or with `chat` in the chat template, with a metric of its next token.

        The metric is the log-probability of `target` in nats, or with `wrong` the logit difference of the two.
        `corrupt` is the corrupted prompt. Raises `PromptError` when an answer is not one token, or the two prompts
        differ in length.
        """
        from interp.models.adapter import token_strings

        tokens = prompt_tokens(model, text, chat=chat).cpu()
        base = None if corrupt is None else prompt_tokens(model, corrupt, chat=chat).cpu()
        if base is not None and base.shape != tokens.shape:
            pair = [" ".join(map(repr, token_strings(model, prompt))) for prompt in (tokens, base)]
            raise PromptError(
                f"{tokens.shape[1]} tokens in the prompt, {base.shape[1]} in the corrupted one, positions must match: "
                f"{pair[0]} against {pair[1]}; reword one of the two"
            )
        right = _one_token(model, target)
        metric = LogProb([right]) if wrong is None else LogitDiff([right], [_one_token(model, wrong)])
        lengths = torch.tensor([tokens.shape[1]])
        return cls(name=text, tokens=tokens, lengths=lengths, at=lengths[:, None] - 1, metric=metric, corrupt=base)

    def take(self, rows: Int[Tensor, " n_taken"]) -> "MeasuredPrompts":
        """Return some of the prompts."""
        return replace(
            self,
            tokens=self.tokens[rows],
            lengths=self.lengths[rows],
            at=self.at[rows],
            metric=self.metric.take(rows),
            corrupt=None if self.corrupt is None else self.corrupt[rows],
        )

    def batches(self, batch_size: int) -> "list[MeasuredPrompts]":
        """Return the prompts in batches, in order."""
        return [self.take(rows) for rows in torch.arange(len(self)).split(batch_size)]

    def mask(self, first: int) -> Bool[Tensor, "n pos"]:
        """Return the mask of positions that are neither padding nor among the `first`: `[n, pos]` bool."""
        position = torch.arange(self.tokens.shape[1])[None]
        return (position >= first) & (position < self.lengths[:, None])


def _one_token(model: HookedModel, text: str) -> int:
    from interp.models.adapter import token_strings

    ids = list(tokenizer_of(model).encode_batch([text])[0])
    if len(ids) != 1:
        parts = " ".join(repr(part) for part in token_strings(model, ids))
        raise PromptError(
            f"the answer {text!r} is {len(ids)} tokens ({parts or 'none'}); choose one token, often one with a leading "
            "space"
        )
    return ids[0]


@dataclass(eq=False)
class SiteTrace:
    """Value at one site on one batch of prompts and in the baseline, decomposed."""

    site: SAESite
    x: Tensor
    """`[batch, pos, d_in]`: value that the site reads"""
    value: Tensor
    """`[batch, pos, d_out]`: value that the site writes"""
    parts: DecomposedValue
    """decomposition of `value`"""
    start: Tensor
    """`[batch, pos, d_out]`: the value in the baseline"""
    base: tuple[Tensor, DecomposedValue] | None
    """value that the site reads on the corrupted prompts, and the decomposition of the value that it writes there"""
    mask: Tensor
    """`[batch, pos]` bool: positions that are decomposed"""
    metric: Tensor
    """`[batch]`: metric on the prompts"""

    def __post_init__(self) -> None:
        self.entries = NonzeroActivations.of(self.parts.acts)
        self.base_entries = None if self.base is None else NonzeroActivations.of(self.base[1].acts)
        all_keys = self._keys(self.entries)
        if self.base_entries is not None:
            all_keys = torch.cat([all_keys, self._keys(self.base_entries)])
        keys, self._index = all_keys.unique(return_inverse=True)
        d_sae = self.site.sae.d_sae
        self.row, self.feature = keys // d_sae, keys % d_sae

    @property
    def error_change(self) -> Tensor:
        """Error on the prompt minus the error in the baseline: `[batch, pos, d_out]`."""
        error = self.parts.error if self.base is None else self.parts.error - self.base[1].error
        return error.view(self.value.shape)

    @property
    def rest_change(self) -> Tensor:
        """Rest on the prompt minus the rest in the baseline: `[batch, pos, d_out]`, zero without corrupted prompts."""
        change = torch.zeros_like(self.parts.rest) if self.base is None else self.parts.rest - self.base[1].rest
        return change.view(self.value.shape)

    def effects(self, gradient: Tensor) -> Tensor:
        """Return change of activation times gradient, `[m]`, for features active on the prompt or in the baseline.

        Entry `i` is `feature[i]` on token `row[i]`. `gradient [batch, pos, d_out]` is that of the metric at the value.
        """
        parts = [self._effects(self.entries, gradient, self.x)]
        if self.base is not None and self.base_entries is not None:
            parts.append(-self._effects(self.base_entries, gradient, self.base[0]))
        return sum_by(self._index, torch.cat(parts), len(self.row))

    def activation(self) -> Tensor:
        """Return the activations on the prompt, `[m]`, for the entries of `effects`."""
        n = len(self.entries.row)
        return sum_by(self._index[:n], self.entries.value, len(self.row))

    def change(self, feature: int) -> Tensor:
        """Return the change of the value, `[batch, pos, d_out]`, when one feature is set to the baseline."""
        change = -self._written(self.parts, feature, self.x)
        return change if self.base is None else change + self._written(self.base[1], feature, self.base[0])

    def _written(self, parts: DecomposedValue, feature: int, x: Tensor) -> Tensor:
        direction = activation_of(parts.acts, feature)[:, None] * self.site.sae.W_dec[feature]
        return self.site.add(direction.view(*x.shape[:2], -1), x)

    def _effects(self, entries: NonzeroActivations, gradient: Tensor, x: Tensor) -> Tensor:
        pulled = self.site.pull_back(gradient, x).flatten(0, 1)
        return entries.value * self.site.along(entries, pulled)

    def _keys(self, entries: NonzeroActivations) -> Tensor:
        return entries.row * self.site.sae.d_sae + entries.feature


@torch.no_grad()
def trace_sites(
    model: HookedModel, sites: Sequence[SAESite], prompts: MeasuredPrompts, *, first: int = 0
) -> list[SiteTrace]:
    """Trace every site on some prompts, in one pass, or in two with corrupted prompts.

    The `first` positions and padding are not decomposed.
    """
    clean, metric = _values(model, sites, prompts, prompts.tokens)
    corrupt = {} if prompts.corrupt is None else _values(model, sites, prompts, prompts.corrupt)[0]
    mask = prompts.mask(first).to(model.cfg.device)
    traces = []
    for site in sites:
        x, value = clean[site.writes]
        parts, base = site.decompose(x, value, mask), None
        start = parts.rest.view(value.shape)
        if corrupt:
            x_base, value_base = corrupt[site.writes]
            base = (x_base, site.decompose(x_base, value_base, mask))
            start = torch.where(mask[..., None], value_base, value)
        traces.append(
            SiteTrace(site=site, x=x, value=value, parts=parts, start=start, base=base, mask=mask, metric=metric)
        )
    return traces


@torch.no_grad()
def metric_with(
    model: HookedModel, sites: Sequence[SAESite], prompts: MeasuredPrompts, change: Sequence[Replace | None]
) -> Tensor:
    """Return the metric, `[batch]` float64, of a run in which the values at some sites are replaced."""
    return prompts.metric(run_sites(model, prompts.tokens, sites, change, [read_hook(prompts.at)])).cpu().double()


def put(value: Tensor) -> Replace:
    """Return a replacement by a fixed value."""
    return lambda x, output: value


def activation_of(acts: SparseActs, feature: int) -> Tensor:
    """Return the activation of one feature on each token, `[n]`."""
    return (acts.values * (acts.indices == feature)).sum(1)


def sum_by(index: Tensor, values: Tensor, n: int) -> Tensor:
    """Return the sums of `values [m]` that share an `index [m]`: `[n]` float64."""
    return torch.zeros(n, dtype=torch.float64, device=values.device).index_add_(0, index, values.double())


def _values(
    model: HookedModel, sites: Sequence[SAESite], prompts: MeasuredPrompts, tokens: Tensor
) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """Return the values that each site reads and writes, by the hook point that it writes, and the metric."""
    store: dict[str, tuple[Tensor, Tensor]] = {}
    notes = [note_values(store, site.writes) for site in sites]
    logits = run_sites(model, tokens, sites, notes, [read_hook(prompts.at)])
    return store, prompts.metric(logits).cpu().double()
