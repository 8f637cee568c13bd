"""Words for a fine-tune, measured on text outside its training.

- *Difference lens* (Minder et al. 2026): the mean of `x_tuned - x_base` over the first tokens of texts, at every layer,
  read through the Jacobian lens of the base (else the logit lens), and added to the base while it writes.
- *Directions of the weights*: singular vectors of `W_tuned - W_base` that attention and MLP write into the residual
  stream, largest first, of merged adapters too, read by the same lens.
- *Predictions*: KL(tuned || base) at every position, and the tokens whose mean probability changed.

**Null.** The base with the change of every matrix written elsewhere: outputs permuted, and signs flipped at random,
alike for all matrices of one width. Norm, rank, the inputs that a change answers to and its alignment across layers
stay; only what it writes is random. Gaussian noise of the same norm would spread over all directions, unlike a change
of low rank. A copy without a change says nothing.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from interp.changes._components import WeightComponent, check_comparable, same, upper_bound, written
from interp.changes._stream import BATCH, check_tokens
from interp.changes.comparison import N_WORDS, SMALLEST, Change, Disagreement, Question, Said, Written
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
"""difference, written directions, predictions, tokens, positions: 5 % errors over all of them"""
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
    n_null: int = DRAWS["quick"],
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[list[Change], Said]:
    """Find words for the change from `base` to `tuned` on `tokens [n_contexts, pos]`; both models are restored.

    `lens`: of the base. Cost: `2 + n_null` passes over the first 32 tokens of the contexts. Raises `ConfigError` for
    fewer than two nulls and as `stream_changes`, `MismatchError` for another lens and as `check_comparable`.
    """
    if n_null < 2:
        raise ConfigError(f"the null needs at least 2 changes that write elsewhere, got n_null {n_null}; leave it out")
    base_parts, tuned_parts = check_comparable(base, tuned)
    check_tokens(tokens, base)
    if lens is not None:
        lens.check_model(base)
    passes = _Passes(base, tokens[:, :POSITIONS])
    tuned_pass, nulls, matrices = passes.of(tuned), [], _writing(base_parts, tuned_parts)
    for draw in range(n_null):
        if progress:
            progress(draw + 2, n_null + 3, {"null": draw + 1})
        with scrambled(base_parts, tuned_parts, make_generator(seed, "writes elsewhere", draw)):
            nulls.append(passes.of(base))
    words = _Words(base, lens, text)
    shifts = list(_difference(words, passes, tuned_pass, nulls))
    largest = max((row for row in shifts if row.found), key=lambda row: row.times, default=None)
    point = "" if largest is None else passes.points[passes.names.index(largest.place)]
    rows = [
        _predictions(text, tuned_pass, nulls),
        *_tokens(base, text, passes.base, tuned_pass, nulls),
        *shifts,
        *_directions(words, matrices, seed),
    ]
    highest = upper_bound(np.array([float(null.kl.max()) for null in nulls]), n_tests=QUESTIONS)
    said = Said(
        text=text,
        n_tokens=passes.tokens.numel(),
        first=min(FIRST, passes.tokens.shape[1] - 1),
        lens="" if lens is None else lens.about.key,
        kl_high=float(highest),
        turns=tuple(_turns(base, passes, tuned_pass)),
        steered_at=point,
        written=tuple(_written(base, tuned, passes, tuned_pass, nulls[0], point)),
    )
    return rows, said


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


@dataclass
class _Passes:
    """Passes over the text, compared with the base."""

    model: HookedModel
    tokens: Tensor
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
        for at, rows in enumerate(self.tokens.split(BATCH)):
            seen: dict[str, Tensor] = {}
            hooks = [(name, storing_hook(seen, name)) for name in self.points]
            logits = run_from(model, rows.to(model.cfg.device), hooks)
            assert logits is not None
            log_p = logits.float().log_softmax(-1).cpu()
            if first:
                self.log_p.append(log_p)
            p = log_p.exp()
            parts.append((p.sum((0, 1)), (p * (log_p - self.log_p[at])).sum(-1), log_p.topk(TOP).indices))
            starts = torch.stack([seen[name][:, 1 : 1 + FIRST].double().cpu() for name in self.points])
            resid = resid + starts.mean(2).sum(1)
            size = size + starts.norm(dim=-1).mean(2).sum(1)
        n = len(self.tokens)
        use, kl, top = zip(*parts, strict=True)
        assert isinstance(resid, Tensor)
        assert isinstance(size, Tensor)
        used = torch.stack(use).sum(0).double() / self.tokens.numel()
        return _Pass(resid / n, size / n, used, torch.cat(kl).clamp_min(0), torch.cat(top))


class _Words:
    """Reads directions of the residual stream as tokens, through the lens."""

    def __init__(self, model: HookedModel, lens: JacobianLens | None, text: str):
        self.model, self.lens, self.text, self.ids = model, lens, text, ordinary_tokens(model)
        self.raises = read_directions(model)[self.ids]

    def carry(self, directions: Tensor, point: str) -> Tensor:
        """Return directions `[n, d_model]` of a hook point in the basis of the last layer."""
        directions = directions.float().cpu()
        return directions if self.lens is None else self.lens.carry(point, directions)

    def logits(self, carried: Tensor) -> Tensor:
        """Return the logits `[n, tokens]` that are added to a last residual of root mean square 1."""
        return carried @ self.raises.T

    def strengths(self, carried: Tensor) -> Tensor:
        """Return `[n, tokens]`, in standard deviations over the vocabulary."""
        logits = self.logits(carried)
        return logits / logits.std(1, keepdim=True).clamp_min(1e-12)

    def largest(self, carried: Tensor) -> np.ndarray:
        """Return the largest strength of each direction, of either sign, `[n]`."""
        blocks = [self.strengths(block).abs().amax(1) for block in carried.split(AT_ONCE)]
        return torch.cat(blocks).double().numpy()

    def said(
        self, strengths: Tensor, name: str, place: str, question: Question, null: np.ndarray, high: float
    ) -> Change:
        """Return a direction with its tokens, of strengths `[tokens]`; `null` has the largest of each null."""
        best = strengths.topk(min(N_WORDS, len(strengths)))
        words = token_strings(self.model, self.ids[best.indices])
        return _row(question, self.text, name, float(best.values[0]), null, high, place=place, words=words)


def _row(
    question: Question, text: str, name: str, value: float, null: np.ndarray, high: float, *,
    place: str = "", words: Sequence[str] = (),
) -> Change:  # fmt: skip
    """Return a value beside its nulls `[n_null]` and their bound."""
    none = float("nan")
    return Change(
        question=question, text=text, name=name, place=place, value=value, low=none, high=none,
        null=float(null.mean()), bound=float(high), found=value > max(high, SMALLEST), words=list(words),
    )  # fmt: skip


def _difference(words: _Words, passes: _Passes, tuned_pass: _Pass, nulls: Sequence[_Pass]) -> Iterator[Change]:
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
        place = passes.names[at]
        yield words.said(rows[i], place, place, "difference", null[:, i], high[i])


@dataclass(frozen=True)
class _Matrix:
    """The change of one matrix that writes into the residual stream."""

    name: str
    place: str
    point: str
    """hook point of the lens"""
    directions: Tensor
    """`[k, d_model]` singular vectors, the largest first"""


def _writing(ones: Sequence[WeightComponent], twos: Sequence[WeightComponent]) -> list[_Matrix]:
    """Return the largest singular vectors of every matrix that writes into the residual stream and changed."""
    changes: dict[tuple[int, str], list[Tensor]] = {}
    for before, after in zip(ones, twos, strict=True):
        if before.layer is not None and before.kind in ("W_O", "mlp.out") and not same(before, after):
            change = after.tensors[0].detach().to(before.tensors[0].device) - before.tensors[0].detach()
            changes.setdefault((before.layer, before.kind), []).append(change.float().T)
    matrices = []
    for (layer, kind), heads in changes.items():
        joined = torch.cat(heads, 1)  # [d_model, width]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of the subspace that the iteration starts from
            vectors, values, _ = torch.svd_lowrank(joined, min(2 * DIRECTIONS, *joined.shape), niter=4)
        shares = values.double().square() / joined.double().square().sum()
        kept = vectors[:, : min(DIRECTIONS, int((shares > 1e-6).sum()))].T.cpu()
        matrices.append(_Matrix(f"L{layer}.{kind}", f"L{layer}", f"blocks.{layer}.hook_resid_post", kept))
    return matrices


def _directions(words: _Words, matrices: Sequence[_Matrix], seed: int) -> Iterator[Change]:
    """Yield the directions that changed matrices write as tokens; a direction counts with either sign."""
    if not matrices:
        return
    null, ends = [], np.cumsum([len(matrix.directions) for matrix in matrices])[:-1]
    for draw in range(PER_PART):
        generator = make_generator(seed, "directions elsewhere", draw, "writes")
        order, signs = _elsewhere(matrices[0].directions.shape[1], generator)
        carried = torch.cat([words.carry(matrix.directions[:, order] * signs, matrix.point) for matrix in matrices])
        null.append([part.max() for part in np.split(words.largest(carried), ends)])
    null = np.array(null)  # [draws, matrices]
    high = upper_bound(null, n_tests=QUESTIONS * len(matrices))
    for i, matrix in enumerate(matrices):
        for k, row in enumerate(words.strengths(words.carry(matrix.directions, matrix.point))):
            row = row if row.max() >= -row.min() else -row
            yield words.said(row, f"{matrix.name} {k + 1}", matrix.place, "writes", null[:, i], high[i])


def _predictions(text: str, tuned_pass: _Pass, nulls: Sequence[_Pass]) -> Change:
    """Return how far the predictions moved, mean over positions."""
    null = np.array([float(draw.kl.mean()) for draw in nulls])
    high = float(upper_bound(null, n_tests=QUESTIONS))
    return _row("predictions", text, "KL", float(tuned_pass.kl.mean()), null, high)


def _deviance(before: Tensor, after: Tensor) -> Tensor:
    """Return the signed contribution of each token to the divergence of two means, in nats."""
    small = 1e-12
    size = after * ((after + small) / (before + small)).log() - after + before
    return size.clamp_min(0) * (after - before).sign()


def _tokens(base: HookedModel, text: str, before: _Pass, tuned_pass: _Pass, nulls: Sequence[_Pass]) -> Iterator[Change]:
    """Yield the tokens whose mean probability changed most."""
    change = _deviance(before.use, tuned_pass.use)
    null = np.array([float(_deviance(before.use, draw.use).abs().max()) for draw in nulls])
    high = float(upper_bound(null, n_tests=QUESTIONS))
    best = change.abs().topk(min(2 * SHOWN, len(change))).indices
    for at, name in zip(best.tolist(), token_strings(base, best), strict=True):
        if moved := float(change[at]):
            yield _row("more" if moved > 0 else "less", text, name, abs(moved), null, high)


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
