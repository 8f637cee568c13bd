"""Words for a fine-tune, measured on text outside its training.

- *Difference lens* (Minder et al. 2026): the mean of `x_tuned - x_base` over the first tokens of texts, at every layer,
  read through the Jacobian lens of the base (else the logit lens), and added to the base while it writes.
- *Directions of the weights*: singular vectors of `W_tuned - W_base` in the residual stream, largest first, of merged
  adapters too. Those that attention and MLP write are read by the lens; those that they read, by the tokens whose
  embeddings lie along them.
- *Predictions*: KL(tuned || base) at every position, the tokens whose mean probability changed, and features of
  dictionaries of the base whose mean activation changed.

**Null.** The base with the change of every matrix written elsewhere: outputs permuted, and signs flipped at random,
alike for all matrices of one width. Norm, rank, the inputs that a change answers to and its alignment across layers
stay; only what it writes is random. Gaussian noise of the same norm would spread over all directions, unlike a change
of low rank. A copy without a change says nothing.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from interp.changes._components import WeightComponent, check_comparable, same, upper_bound, written
from interp.changes._representations import check_tokens
from interp.changes.comparison import N_WORDS, ChangedWords, DirectionTokens, Disagreement, Use, Way, Written
from interp.dictionary import Dictionary
from interp.errors import ConfigError
from interp.interventions.apply import hooks_of
from interp.interventions.intervention import Direction, Intervention, stream_points
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.vocabulary import read_directions
from interp.models.adapter import bos_token_id, ordinary_tokens, token_strings
from interp.models.generation import NextToken, Offset, generate
from interp.models.hooked import HookedModel
from interp.models.passes import run_from, storing_hook
from interp.nulls import DRAWS, PER_PART
from interp.progress import Progress
from interp.seeds import make_generator

FIRST = 5
"""tokens at the start of a context over which the mean difference is taken, after the first token"""
POSITIONS = 32
"""tokens of a context that are predicted"""
DIRECTIONS = 3
"""singular vectors read of each matrix"""
AT_ONCE = 128
"""directions whose logits are in memory at a time"""
QUESTIONS = 5
"""difference, written and read directions, tokens, positions: 5 % errors over all of them"""
SHOWN, TOP, N_NEW, PROMPT = 12, 3, 24, 6
STEERING = 0.5
"""norm of the difference that is added, as a fraction of the mean norm of the residual"""


@torch.no_grad()
def changed_words(
    base: HookedModel,
    tuned: HookedModel,
    tokens: Tensor,
    *,
    text: str = "text",
    lens: JacobianLens | None = None,
    dictionaries: Mapping[str, Dictionary] | None = None,
    n_null: int = DRAWS["quick"],
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> ChangedWords:
    """Find words for the change from `base` to `tuned` on `tokens [n_contexts, pos]`; both models are restored.

    `lens`: of the base. `dictionaries`: key -> a dictionary of the base of one hook point. Cost: `2 + n_null` passes
    over the first 32 tokens of the contexts. Raises `ConfigError` for fewer than two nulls and as
    `representation_changes`, `MismatchError` for another lens and as `check_comparable`.
    """
    if n_null < 2:
        raise ConfigError(f"the null needs at least 2 changes that write elsewhere, got n_null {n_null}; leave it out")
    base_parts, tuned_parts = check_comparable(base, tuned)
    check_tokens(tokens, base)
    if lens is not None:
        lens.check_model(base)
    passes = _Passes(base, tokens[:, :POSITIONS], dictionaries or {}, batch_size)
    tuned_pass, nulls, sides = passes.of(tuned), [], _sides(base, base_parts, tuned_parts)
    for draw in range(n_null):
        if progress:
            progress(draw + 2, n_null + 3, {"null": draw + 1})
        with scrambled(base_parts, tuned_parts, make_generator(seed, "writes elsewhere", draw)):
            nulls.append(passes.of(base))
    words = _Words(base, lens)
    directions = [*_difference(words, passes, tuned_pass, nulls), *_directions(words, sides, seed)]
    layer = max(
        (direction for direction in directions if direction.way == "difference" and direction.above_null),
        key=lambda direction: direction.strength / direction.null_high, default=None,
    )  # fmt: skip
    point = "" if layer is None else passes.points[passes.names.index(layer.name)]
    highest = upper_bound(np.array([float(null.kl.max()) for null in nulls]), n_tests=QUESTIONS)
    return ChangedWords(
        text=text,
        n_contexts=len(tokens),
        n_tokens=passes.tokens.numel(),
        first=min(FIRST, passes.tokens.shape[1] - 1),
        lens="" if lens is None else lens.about.key,
        directions=tuple(directions),
        kl=float(tuned_pass.kl.mean()),
        kl_null=float(np.mean([float(null.kl.mean()) for null in nulls])),
        kl_high=float(highest),
        turns=tuple(_turns(base, passes, tuned_pass)),
        tokens=tuple(_tokens(base, passes.base, tuned_pass, nulls)),
        features=tuple(_features(passes.base, tuned_pass, nulls)),
        steered_at=point,
        written=tuple(_written(base, tuned, passes, tuned_pass, nulls[0], point)),
    )


@contextlib.contextmanager
def scrambled(
    ones: Sequence[WeightComponent], twos: Sequence[WeightComponent], generator: torch.Generator
) -> Iterator[None]:
    """Write into the model of `ones` its change towards `twos`, with outputs permuted and signs flipped at random."""
    orders: dict[int, tuple[Tensor, Tensor]] = {}
    moved = [(before, after) for before, after in zip(ones, twos, strict=True) if not same(before, after)]

    def elsewhere(before: Tensor, after: Tensor) -> Tensor:
        width = before.shape[-1]
        if width not in orders:
            orders[width] = _elsewhere(width, generator)
        order, signs = orders[width]
        return before + (after.to(before) - before)[..., order.to(before.device)] * signs.to(before)

    values = [[elsewhere(a.detach(), b.detach()) for a, b in zip(x.tensors, y.tensors, strict=True)] for x, y in moved]
    with written([component for component, _ in moved], values):
        yield


def _elsewhere(width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a permutation and signs, `[width]` each."""
    return torch.randperm(width, generator=generator), torch.randint(2, (width,), generator=generator) * 2 - 1


@dataclass(frozen=True)
class _Pass:
    """Values of one model on the text."""

    resid: Tensor
    """`[n_layers + 1, d_model]` residual, mean over the first tokens"""
    size: Tensor
    """`[n_layers + 1]` its mean norm"""
    use: Tensor
    """`[d_vocab]` mean probability"""
    kl: Tensor
    """`[n_contexts, pos]` from the base, nats"""
    top: Tensor
    """`[n_contexts, pos, TOP]` most likely tokens"""
    acts: dict[str, Tensor]
    """key -> `[d_sae]` mean activation"""


@dataclass
class _Passes:
    """Passes over the text, compared with the base."""

    model: HookedModel
    tokens: Tensor
    dictionaries: Mapping[str, Dictionary]
    batch_size: int
    log_p: list[Tensor] = field(default_factory=list)
    """of the base, one batch each"""

    def __post_init__(self) -> None:
        self.points = stream_points(self.model.cfg.n_layers)
        self.names = ["embed", *(f"L{i}" for i in range(self.model.cfg.n_layers))]
        self.base = self.of(self.model)

    @property
    def last_scale(self) -> float:
        """Mean root mean square of the base's last residual, by which a final norm divides; 1 without such a norm."""
        return float(self.base.size[-1]) / self.model.cfg.d_model**0.5 if hasattr(self.model, "ln_final") else 1.0

    def of(self, model: HookedModel) -> _Pass:
        """Run a model on the text; the first run is the base's."""
        first, parts, resid, size = not self.log_p, [], 0.0, 0.0
        acts: dict[str, Tensor | float] = dict.fromkeys(self.dictionaries, 0.0)
        for at, rows in enumerate(self.tokens.split(self.batch_size)):
            seen: dict[str, Tensor] = {}
            names = [*self.points, *(dictionary.hook_point for dictionary in self.dictionaries.values())]
            logits = run_from(
                model, rows.to(model.cfg.device), [(name, storing_hook(seen, name)) for name in dict.fromkeys(names)]
            )
            assert logits is not None
            log_p = logits.float().log_softmax(-1).cpu()
            if first:
                self.log_p.append(log_p)
            p = log_p.exp()
            parts.append((p.sum((0, 1)), (p * (log_p - self.log_p[at])).sum(-1), log_p.topk(TOP).indices))
            starts = torch.stack([seen[name][:, 1 : 1 + FIRST].double().cpu() for name in self.points])
            resid = resid + starts.mean(2).sum(1)
            size = size + starts.norm(dim=-1).mean(2).sum(1)
            for key, dictionary in self.dictionaries.items():
                read = dictionary.encode(seen[dictionary.hook_point][:, 1:].float()).detach()
                acts[key] = acts[key] + read.double().mean(1).sum(0).cpu()
        n = len(self.tokens)
        use, kl, top = zip(*parts, strict=True)
        assert isinstance(resid, Tensor)
        assert isinstance(size, Tensor)
        means = {key: value / n for key, value in acts.items() if isinstance(value, Tensor)}
        used = torch.stack(use).sum(0).double() / self.tokens.numel()
        return _Pass(resid / n, size / n, used, torch.cat(kl).clamp_min(0), torch.cat(top), means)


class _Words:
    """Reads directions as tokens: through the lens, or by the embedding."""

    def __init__(self, model: HookedModel, lens: JacobianLens | None):
        self.model, self.lens, self.ids = model, lens, ordinary_tokens(model)
        self.raises = read_directions(model)[self.ids]
        embedding = model.W_E.detach().float().cpu()[self.ids]
        embedding = embedding / embedding.norm(dim=1, keepdim=True).clamp_min(1e-12)
        self.embedded = embedding - embedding.mean(0)

    def carry(self, directions: Tensor, point: str) -> Tensor:
        """Return directions `[n, d_model]` of a hook point in the basis of the last layer; without one as they are."""
        directions = directions.float().cpu()
        return directions if self.lens is None or not point else self.lens.carry(point, directions)

    def logits(self, carried: Tensor) -> Tensor:
        """Return the logits `[n, tokens]` that are added to a last residual of root mean square 1."""
        return carried @ self.raises.T

    def strengths(self, carried: Tensor, *, reads: bool) -> Tensor:
        """Return `[n, tokens]`, in standard deviations over the vocabulary."""
        logits = carried @ self.embedded.T if reads else self.logits(carried)
        return logits / logits.std(1, keepdim=True).clamp_min(1e-12)

    def largest(self, carried: Tensor, *, reads: bool) -> np.ndarray:
        """Return the largest strength of each direction, of either sign, `[n]`."""
        blocks = [self.strengths(block, reads=reads).abs().amax(1) for block in carried.split(AT_ONCE)]
        return torch.cat(blocks).double().numpy()

    def said(
        self, strengths: Tensor, name: str, way: Way, share: float, null: np.ndarray, high: float
    ) -> DirectionTokens:
        """Return a direction with its tokens, of strengths `[tokens]`; `null` has the largest of each null."""
        best = strengths.topk(min(N_WORDS, len(strengths)))
        return DirectionTokens(
            name=name, way=way, share=share, words=tuple(token_strings(self.model, self.ids[best.indices])),
            strength=float(best.values[0]), null=float(null.mean()), null_high=float(high),
        )  # fmt: skip


def _difference(words: _Words, passes: _Passes, tuned_pass: _Pass, nulls: Sequence[_Pass]) -> Iterator[DirectionTokens]:
    """Yield the mean difference of every layer at which there is one, as tokens."""
    moved = tuned_pass.resid - passes.base.resid
    layers = [at for at, shift in enumerate(moved) if float(shift.norm()) > 1e-6 * float(passes.base.size[at])]
    if not layers:
        return

    def carried(of: _Pass) -> Tensor:
        return torch.cat([words.carry((of.resid - passes.base.resid)[at][None], passes.points[at]) for at in layers])

    scale = passes.last_scale
    rows = words.logits(carried(tuned_pass)) / scale
    null = np.stack([(words.logits(carried(null_pass)) / scale).amax(1).double().numpy() for null_pass in nulls])
    high = upper_bound(null, n_tests=QUESTIONS * len(layers))
    for i, at in enumerate(layers):
        share = float(moved[at].norm() / passes.base.size[at])
        yield words.said(rows[i], passes.names[at], "difference", share, null[:, i], high[i])


@dataclass(frozen=True)
class _Side:
    """The change of one matrix on its side of the residual stream."""

    name: str
    reads: bool
    point: str
    """hook point of the lens; empty for what the matrix reads"""
    directions: Tensor
    """`[k, d_model]` singular vectors, the largest first"""
    shares: Tensor
    """`[k]` of the squared change"""


def _sides(base: HookedModel, ones: Sequence[WeightComponent], twos: Sequence[WeightComponent]) -> list[_Side]:
    """Return the largest singular vectors in the residual stream of every matrix of a layer that changed."""
    changes: dict[str, tuple[int, bool, list[Tensor]]] = {}
    for before, after in zip(ones, twos, strict=True):
        kind = before.kind.removeprefix("mlp.")
        if before.layer is None or kind not in ("W_Q", "W_K", "W_V", "W_O", "gate", "in", "out") or same(before, after):
            continue
        reads = kind not in ("W_O", "out")
        change = (after.tensors[0].detach().to(before.tensors[0].device) - before.tensors[0].detach()).float()
        name = f"L{before.layer}.{before.kind}"
        changes.setdefault(name, (before.layer, reads, []))[2].append(change if reads else change.T)
    sides = []
    for name, (layer, reads, parts) in changes.items():
        joined = torch.cat(parts, 1)  # [d_model, width]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of the subspace that the iteration starts from
            vectors, values, _ = torch.svd_lowrank(joined, min(2 * DIRECTIONS, *joined.shape), niter=4)
        shares = values.double().square() / joined.double().square().sum()
        k = min(DIRECTIONS, int((shares > 1e-6).sum()))
        point = "" if reads else f"blocks.{layer}.hook_resid_post"
        sides.append(_Side(name, reads, point, vectors[:, :k].T.cpu(), shares[:k].cpu()))
    return sides


def _directions(words: _Words, sides: Sequence[_Side], seed: int) -> Iterator[DirectionTokens]:
    """Yield the directions of the weight changes as tokens; a direction counts with either sign."""
    ways: tuple[tuple[Way, bool], ...] = (("writes", False), ("reads", True))
    for way, reads in ways:
        mine = [side for side in sides if side.reads is reads]
        if not mine:
            continue
        null, ends = [], np.cumsum([len(side.shares) for side in mine])[:-1]
        for draw in range(PER_PART):
            generator = make_generator(seed, "directions elsewhere", draw, way)
            order, signs = _elsewhere(mine[0].directions.shape[1], generator)
            carried = torch.cat([words.carry(side.directions[:, order] * signs, side.point) for side in mine])
            largest = words.largest(carried, reads=reads)
            null.append([part.max() for part in np.split(largest, ends)])
        null = np.array(null)  # [draws, matrices]
        high = upper_bound(null, n_tests=QUESTIONS * len(mine))
        for i, side in enumerate(mine):
            strengths = words.strengths(words.carry(side.directions, side.point), reads=reads)
            for k, row in enumerate(strengths):
                row = row if row.max() >= -row.min() else -row
                yield words.said(row, f"{side.name} {k + 1}", way, float(side.shares[k]), null[:, i], high[i])


def _deviance(before: Tensor, after: Tensor) -> Tensor:
    """Return the signed contribution of each token to the divergence of two means, in nats."""
    small = 1e-12
    size = after * ((after + small) / (before + small)).log() - after + before
    return size.clamp_min(0) * (after - before).sign()


def _tokens(base: HookedModel, before: _Pass, tuned_pass: _Pass, nulls: Sequence[_Pass]) -> Iterator[Use]:
    """Yield the tokens whose mean probability changed most."""
    change = _deviance(before.use, tuned_pass.use)
    high = upper_bound(
        np.array([float(_deviance(before.use, null.use).abs().max()) for null in nulls]), n_tests=QUESTIONS
    )
    best = change.abs().topk(min(2 * SHOWN, len(change))).indices
    for at, name in zip(best.tolist(), token_strings(base, best), strict=True):
        if float(change[at]):
            yield Use(
                what=name, before=float(before.use[at]), after=float(tuned_pass.use[at]), change=float(change[at]),
                null_high=float(high),
            )  # fmt: skip


def _features(before: _Pass, tuned_pass: _Pass, nulls: Sequence[_Pass]) -> Iterator[Use]:
    """Yield the features of each dictionary whose mean activation changed most, over its null."""
    for key, acts in before.acts.items():
        change = tuned_pass.acts[key] - acts
        high = float(
            upper_bound(np.array([float((null.acts[key] - acts).abs().max()) for null in nulls]), n_tests=QUESTIONS)
        )
        for at in change.abs().topk(min(SHOWN, len(change))).indices.tolist():
            if float(change[at]):
                yield Use(
                    what=f"{key.partition('/')[2]}:{at}", before=float(acts[at]), after=float(tuned_pass.acts[key][at]),
                    change=float(change[at]), null_high=high,
                )  # fmt: skip


def _turns(base: HookedModel, passes: _Passes, tuned_pass: _Pass) -> Iterator[Disagreement]:
    """Yield the positions of largest KL, at most one of each context; the last has no token after it."""
    kl = tuned_pass.kl[:, :-1]
    value, where = kl.max(1)
    for row in value.argsort(descending=True)[:SHOWN].tolist():
        at, ids = int(where[row]), passes.tokens[row]
        if float(value[row]):
            strings = token_strings(base, ids[: at + 2])
            yield Disagreement(
                before="".join(strings[:-1]), actual=strings[-1], kl=float(value[row]),
                base=tuple(token_strings(base, passes.base.top[row, at])),
                tuned=tuple(token_strings(base, tuned_pass.top[row, at])),
            )  # fmt: skip


def _written(
    base: HookedModel, tuned: HookedModel, passes: _Passes, tuned_pass: _Pass, null: _Pass, point: str
) -> Iterator[Written]:
    """Yield continuations of a short prompt, and of none, by both models, and by the base with a difference added."""
    room = base.cfg.n_ctx - PROMPT
    n_new, at = min(N_NEW, room), passes.points.index(point) if point else 0
    if n_new < 1:
        return
    steps: list[list[Intervention]] = [[], []]
    if point:
        for i, run in enumerate((tuned_pass, null)):
            moved = (run.resid - passes.base.resid)[at]
            target = Direction(hook_point=point, vector=(moved / moved.norm()).numpy(), origin="mean difference")
            steps[i] = [Intervention(target=target, amount=STEERING * float(passes.base.size[at]))]

    def text(model: HookedModel, ids: Tensor, interventions: Sequence[Intervention] = ()) -> str:
        offset = Offset()
        step = NextToken(model, hooks_of(model, interventions, offset=offset), offset=offset)
        return "".join(token_strings(model, torch.cat(list(generate(step, ids.to(model.cfg.device), n_new)))))

    opening = bos_token_id(base)
    prompts = [row[None, :PROMPT] for row in passes.tokens[:1]]
    prompts += [] if opening is None else [torch.tensor([[opening]])]
    for ids in prompts:
        steered = [text(base, ids, interventions) if interventions else "" for interventions in steps]
        shown = "".join(token_strings(base, ids[0][ids[0] != opening]))
        yield Written(prompt=shown, base=text(base, ids), tuned=text(tuned, ids), steered=steered[0], null=steered[1])
