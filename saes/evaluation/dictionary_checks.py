"""Checks of `interp.doctor`, on a short text: is a dictionary applied as it was trained?"""

import contextlib
import copy
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from interp.artifacts import hash_json
from interp.doctor.certificate import Check
from interp.doctor.examine import set_up
from interp.doctor.trials import Outcome, Setup, Skip, due, gap, run_trials, trial, trials_of
from interp.models.adapter import available_hook_points, bos_token_id
from interp.models.hooked import HookedModel
from interp.models.passes import capture
from interp.names import canonical_hook_point, parse_hook_point
from saes.evaluation.baselines import random_dictionary_like
from saes.evaluation.in_model import can_splice, evaluate_in_model
from saes.kinds.base import SAE, JumpReLU, OneLayerSAE, ReLU, TokenNormSAE, TopK
from saes.kinds.l1 import GatedSAE
from saes.kinds.transcoder import Transcoder
from saes.training.stored import ProseScores

SCALES = (0.1, 0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 4.0, 10.0)
NEAR_ONE, SHRUNK = (0.85, 1.2), 1.4
"""Scales that count as 1, and the largest allowed for a ReLU dictionary, whose L1 penalty shrinks activations."""

OUTPUT, GAINED = (0.8, 1.4), 0.05
"""Factors on the latents' output that count as 1 (an L1 penalty shrinks it), and the variance that one factor per
latent may add."""
STATED = 0.1
"""Largest difference from the scores that were measured on the same prose, as a fraction of them."""


@dataclass(frozen=True, kw_only=True)
class CardScores:
    """Scores that a dictionary's card states; None where it does not."""

    l0: float | None = None
    fvu: float | None = None
    prose: ProseScores | None = None
    """Scores on this very prose, stored when the dictionary was trained or imported."""


@dataclass(frozen=True)
class Applied:
    """A dictionary in a set-up, and what its card says."""

    setup: Setup
    sae: SAE
    card: CardScores

    @property
    def points(self) -> tuple[str, str]:
        """Hook points that it reads and writes."""
        reads = canonical_hook_point(self.sae.hook_point)
        return reads, canonical_hook_point(self.sae.hook_point_out or reads)

    def at(self, reads: str, writes: str) -> tuple[Tensor, Tensor]:
        """Return the values `[n, d]` float32 at two hook points on the prose, BOS left out."""
        known = self.read([reads, writes])
        return known[reads].to(self.sae.device), known[writes].to(self.sae.device)

    def read(self, hook_points: Iterable[str]) -> dict[str, Tensor]:
        """Return the values at some hook points, and at all that were read before; new ones are read in one pass."""
        texts, model = self.setup.prompts.texts, self.setup.model
        if texts is None:
            raise Skip("the model has no tokenizer")
        known = self.setup.known.setdefault("at", {})
        if wanted := sorted({*hook_points} - known.keys()):
            first = int(bos_token_id(model) is not None)
            values = capture(model, texts, wanted)
            known |= {name: value[:, first:].flatten(2).flatten(0, 1).float() for name, value in values.items()}
        return known

    @property
    def own(self) -> tuple[Tensor, Tensor]:
        """Values at its own hook points; those around them are read in the same pass."""
        self.read({*self.points, *(name for pair in _neighbours(self) for name in pair)})
        return self.at(*self.points)

    @cached_property
    def fvu(self) -> float:
        """FVU at its own hook points, measured once."""
        return fvu_of(self.sae, *self.own)

    @cached_property
    def l0(self) -> float:
        """Mean number of active latents of a token, measured once."""
        with torch.no_grad():
            return float((self.sae.encode_sparse(self.own[0]).values > 0).sum(-1).float().mean())


@torch.no_grad()
def fvu_of(sae: SAE, x: Float[Tensor, "n d_in"], target: Float[Tensor, "n d_out"], scale: float = 1.0) -> float:
    """Return the fraction of variance unexplained of `target` from `scale * x`, the output divided by the scale.

    0 is exact, 1 the mean.
    """
    off = (sae(scale * x).float() / scale - target).square().sum()
    return float(off / (target - target.mean(0)).square().sum())


def _act(sae: SAE, pre: Tensor) -> Tensor:
    """Return activations `[n, d_sae]` in float64, written out from the formula of each kind."""
    if isinstance(sae, GatedSAE):
        gate = pre
        magnitude = (pre - sae.b_enc.double()) * sae.r_mag.double().exp() + sae.b_mag.double()
        return (gate > 0) * magnitude.clamp_min(0)
    kind = getattr(sae, "activation", None)
    if isinstance(kind, TopK):
        least = pre.topk(kind.k, dim=-1).values[:, -1:]
        return torch.where(pre >= least, pre, 0).clamp_min(0)
    if isinstance(kind, JumpReLU):
        return torch.where((pre > kind.threshold.double()) & (pre > 0), pre, 0)
    if isinstance(kind, ReLU):
        return pre.clamp_min(0)
    raise Skip(f"no formula is written down for a {sae.architecture} dictionary")


@trial(
    "dictionary", "weights", cheap=True,
    did="Compared the hash of the weights that the dictionary was trained on with the model's.",
    expected="the same",
    means="It belongs to another model, or to another state of this one: its features mean nothing here.",
)  # fmt: skip
def weights(applied: Applied) -> Outcome:
    saved = applied.sae.metadata.weight_hash
    if not saved:
        raise Skip("the dictionary does not say which weights it was trained on")
    loaded = applied.setup.weight_hash
    return saved == loaded, "the same" if saved == loaded else f"trained on {saved[:12]}, the model has {loaded[:12]}"


@trial(
    "dictionary", "encoder", cheap=True,
    did="Encoded the prose, densely and sparsely, and by the formula of its kind in float64.",
    expected="the same activations",
    means="The encoder is not that of its kind: a bias is left out, a threshold is not used, TopK keeps what is not "
    "positive.",
)  # fmt: skip
@torch.no_grad()
def encoder(applied: Applied) -> Outcome:
    sae, (x, _) = applied.sae, applied.own
    if not isinstance(sae, OneLayerSAE):
        raise Skip(f"a {sae.architecture} dictionary is not encoded by one layer")
    x = x[:256]
    seen = x.double()
    if isinstance(sae, TokenNormSAE):
        scale = sae.scale(seen)
        seen = (seen - scale.centre) / scale.size
    seen = seen - sae.b_dec.double() if sae.subtracts_b_dec else seen
    wanted = _act(sae, seen @ sae.W_enc.double() + sae.b_enc.double())
    sparse = sae.encode_sparse(x)
    spread = torch.zeros_like(wanted).scatter_add_(1, sparse.indices, sparse.values.double())
    difference = max(_off(sae.encode(x).double(), wanted), _off(spread, wanted))
    return difference < 1e-3, f"{difference:.2g} of the activations' norm differ"


def _off(came: Tensor, wanted: Tensor) -> float:
    """Return the norm of the difference over that of the expected value. Ties at a threshold weigh little in it."""
    return float((came - wanted).norm() / wanted.norm().clamp_min(1e-12))


@trial(
    "dictionary", "decoder",
    did="Decoded activations, densely and sparsely, and by adding up decoder rows in float64.",
    expected="the same reconstruction",
    means="The decoder is transposed, its bias is left out or added twice, or latents are matched with other rows.",
)  # fmt: skip
@torch.no_grad()
def decoder(applied: Applied) -> Outcome:
    sae, (x, _) = applied.sae, applied.own
    acts, sparse = sae.encode(x[:256]), sae.encode_sparse(x[:256])
    wanted = acts.double() @ sae.decoder_directions.double() + sae.b_dec.double()
    difference = max(gap(sae.decode(acts), wanted), gap(sae.decode_sparse(sparse), wanted))
    return difference < 1e-2, f"differences up to {difference:.2g} of the spread"


@trial(
    "dictionary", "threshold", cheap=True,
    did="Looked for activations below the threshold, beyond the k of a token, or negative.",
    expected="none of them, and thresholds that are not all 0",
    means="A BatchTopK or JumpReLU dictionary is read as a ReLU: L0 is many times the stated one, and FVU too good.",
)  # fmt: skip
@torch.no_grad()
def threshold(applied: Applied) -> Outcome:
    sae, (x, _) = applied.sae, applied.own
    acts = sae.encode(x)
    kind = getattr(sae, "activation", sae)
    negative = int((acts < 0).sum())
    if (limit := getattr(kind, "threshold", None)) is not None:
        below = int(((acts > 0) & (acts <= limit)).sum())
        none = not bool(limit.any())
        return not negative and not below and not none, (
            "all thresholds are 0: it is a ReLU" if none else f"{below} below their threshold, {negative} negative"
        )
    if (k := getattr(kind, "k", None)) is not None:
        most = int((acts > 0).sum(-1).max())
        return most <= k and not negative, f"at most {most} active of k = {k}, {negative} negative"
    return negative == 0, f"no threshold; {negative} negative"


@trial(
    "dictionary", "scale of the input", cheap=True,
    did=f"Multiplied the input by {SCALES[0]:g} to {SCALES[-1]:g}, and the output back, and measured FVU.",
    expected="the lowest FVU at 1",
    means="Activations are not in the units of training: a normalisation is left out, or done twice.",
)  # fmt: skip
def scale_of_input(applied: Applied) -> Outcome:
    x, target = applied.own
    fvus = {scale: applied.fvu if scale == 1 else fvu_of(applied.sae, x, target, scale) for scale in SCALES}
    best = min(fvus, key=fvus.__getitem__)
    shrinks = isinstance(getattr(applied.sae, "activation", None), ReLU)
    largest = SHRUNK if shrinks else NEAR_ONE[1]
    passed = NEAR_ONE[0] <= best <= largest or _no_worse(fvus[1.0], fvus[best])
    return passed, f"FVU {fvus[1.0]:.3f} at 1, least {fvus[best]:.3f} at {best:g}"


@trial(
    "dictionary", "size of latents",
    cheap=True,
    did="Fitted the factors on the latents' output that reconstruct best: one for all latents, and one for each.",
    expected=f"{OUTPUT[0]:g} to {OUTPUT[1]:g} for all, and with one for each at most {GAINED:g} of the variance more",
    means="Activations or decoder rows are in other units than in training: a norm is left out on one side only, or a "
    "row belongs to another latent.",
)  # fmt: skip
@torch.no_grad()
def size_of_latents(applied: Applied) -> Outcome:
    sae, (x, target) = applied.sae, applied.own
    if not isinstance(sae, OneLayerSAE) or isinstance(sae, TokenNormSAE):
        raise Skip(f"the output of a {sae.architecture} dictionary's latents is not a sum of rows")
    acts, rows = sae.encode(x).float(), sae.decoder_directions.float()
    written, off = acts @ rows, target - sae(x).float()
    together = 1 + float((written * off).sum() / written.square().sum().clamp_min(1e-12))
    size = acts.square().sum(0) * rows.square().sum(1)
    factor = 1 + (acts * (off @ rows.T)).sum(0) / size.clamp_min(1e-12)
    gained = float(((factor - together).square() * size).sum() / (target - target.mean(0)).square().sum())
    passed = OUTPUT[0] <= together <= OUTPUT[1] and gained <= GAINED
    return passed, f"a factor of {together:.2f} for all; with one for each {gained:.3f} of the variance more"


def _no_worse(fvu: float, least: float) -> bool:
    """Return whether an FVU is the lowest, within the uncertainty of a few hundred tokens."""
    return fvu <= max(1.02 * least, least + 0.01)


def _neighbours(applied: Applied) -> Iterator[tuple[str, str]]:
    """Yield the pairs of hook points near its own: the same ones up to two layers away, and others in its layer."""
    have, (reads, writes) = available_hook_points(applied.setup.model), applied.points
    first, second = parse_hook_point(reads), parse_hook_point(writes)
    if first.layer is None or second.layer is None:
        return
    for by in (-2, -1, 1, 2):
        pair = f"blocks.{first.layer + by}.{first.suffix}", f"blocks.{second.layer + by}.{second.suffix}"
        if have.issuperset(pair):
            yield pair
    if reads == writes:
        for suffix in ("hook_resid_pre", "hook_resid_mid", "hook_resid_post"):
            name = f"blocks.{first.layer}.{suffix}"
            if name != reads and name in have and first.suffix.startswith("hook_resid"):
                yield name, name


@trial(
    "dictionary", "hook point", cheap=True,
    did="Applied the dictionary at its own hook point and at those around it, and measured FVU.",
    expected="the lowest FVU at its own",
    means="It is applied a layer off, or before or after a part of the block.",
)  # fmt: skip
def hook_point(applied: Applied) -> Outcome:
    pairs = [applied.points, *_neighbours(applied)]
    if len(pairs) == 1:
        raise Skip("no other hook point near it has this width")
    fitting = [pair for pair in pairs if applied.at(*pair)[0].shape[1] == applied.sae.d_in]
    fvus = {
        pair: applied.fvu if pair == applied.points else fvu_of(applied.sae, *applied.at(*pair)) for pair in fitting
    }
    best = min(fvus, key=fvus.__getitem__)
    passed = _no_worse(fvus[applied.points], fvus[best])
    text = f"FVU {fvus[applied.points]:.3f} at {applied.points[0]}"
    others = [value for pair, value in fvus.items() if pair != applied.points]
    return passed, f"{text}, at others {min(others):.3f} and more" + ("" if passed else f", least at {best[0]}")


@trial(
    "dictionary", "learned", cheap=True,
    did="Measured FVU of the dictionary, of one with its decoder rows shuffled, and of random directions.",
    expected="less than nine tenths of either",
    means="Its weights are not those that were trained, or rows and latents do not belong together.",
)  # fmt: skip
def learned(applied: Applied) -> Outcome:
    sae, (x, target) = applied.sae, applied.own
    shuffled = copy.deepcopy(sae)
    order = torch.randperm(sae.d_sae, generator=torch.Generator().manual_seed(applied.setup.seed)).to(sae.device)
    shuffled.W_dec.data = sae.W_dec.detach()[order]
    random = random_dictionary_like(sae, k=max(1, min(round(applied.l0), sae.d_sae)), seed=applied.setup.seed)
    others = {"shuffled": fvu_of(shuffled, x, target), "random": fvu_of(random.to(sae.device), x, target)}
    text = ", ".join(f"{name} {value:.3f}" for name, value in others.items())
    return applied.fvu < 0.9 * min(others.values()), f"FVU {applied.fvu:.3f}; {text}"


@trial(
    "dictionary", "as its card says", cheap=True,
    did="Compared L0 and FVU on the prose with those that its card states for its own text.",
    expected="L0 within a factor of 1.6, FVU at most twice as large, or 0.1 more",
    means="It is not applied as its author did: other thresholds, units, hook point or text.",
)  # fmt: skip
def as_card_says(applied: Applied) -> Outcome:
    l0, fvu, card = applied.l0, applied.fvu, applied.card
    text = f"L0 {l0:.1f}, FVU {fvu:.3f}"
    if card.l0 is None and card.fvu is None:
        return None, f"{text}; no card states them"
    fits = card.l0 is None or card.l0 / 1.6 <= l0 <= card.l0 * 1.6
    fits = fits and (card.fvu is None or fvu <= max(2 * card.fvu, card.fvu + 0.1))
    line = ", ".join(f"{name} {value:.3g}" for name, value in (("L0", card.l0), ("FVU", card.fvu)) if value is not None)
    return fits, f"{text}; its card: {line}"


@trial(
    "dictionary", "as when it was made", cheap=True,
    did="Compared L0 and FVU on the prose with those stored when the dictionary was trained or imported.",
    expected=f"both within {STATED:.0%}",
    means="Its weights, its model or the way of applying it have changed since: noise in the decoder, a larger "
    "threshold, a bias with the other sign.",
)  # fmt: skip
def as_when_made(applied: Applied) -> Outcome:
    stated, now = applied.card.prose, prose_scores(applied)
    if stated is None:
        raise Skip("not stated: no scores on this prose are stored with it, so its card's margin applies")
    if stated.tokens_hash != now.tokens_hash:
        raise Skip("its scores were measured on other tokens; train or import it again to renew them")
    fits = all(abs(now / stated - 1) <= STATED for now, stated in ((now.l0, stated.l0), (now.fvu, stated.fvu)))
    return fits, f"L0 {now.l0:.1f}, FVU {now.fvu:.3f}; when it was made {stated.l0:.1f}, {stated.fvu:.3f}"


def prose_scores(applied: Applied) -> ProseScores:
    """Return L0 and FVU on the prose. Raises `Skip` for a model without a tokenizer."""
    l0, fvu, texts = applied.l0, applied.fvu, applied.setup.prompts.texts
    assert texts is not None  # `l0` skips
    return ProseScores(l0=l0, fvu=fvu, tokens_hash=hash_json(texts.tolist()))


def scores_on_prose(sae: SAE, model: HookedModel) -> ProseScores | None:
    """Return L0 and FVU on the doctor's prose; None for a dictionary of several hook points, or without a tokenizer."""
    if _is_examined(sae):
        with contextlib.suppress(Skip):
            return prose_scores(Applied(set_up(model, quick=True, referred=False), sae, CardScores()))
    return None


def _is_examined(sae: SAE) -> bool:
    return len(sae.hook_points) == 1 and not (isinstance(sae, Transcoder) and not sae.hook_point_out)


@trial(
    "dictionary", "explained variance",
    did="Computed explained variance over all coordinates together, and as the mean over coordinates.",
    expected="two numbers that papers call by one name",
    means="",
)  # fmt: skip
@torch.no_grad()
def explained_variance(applied: Applied) -> Outcome:
    x, target = applied.own
    off = (applied.sae(x).float() - target).square().sum(0)
    whole = (target - target.mean(0)).square().sum(0)
    together, mean = 1 - float(off.sum() / whole.sum()), float((1 - off / whole.clamp_min(1e-12)).mean())
    acts = applied.sae.encode(x) > 0
    share = acts.float().mean(0)
    dead, dense = float((share == 0).float().mean()), float((share > 0.1).float().mean())
    return None, (
        f"{together:.3f} together, {mean:.3f} by coordinate; {dead:.0%} of the latents silent on these {len(x):,} "
        f"tokens, {dense:.1%} active on more than a tenth"
    )


@trial(
    "dictionary", "loss inside the model",
    did="Let the model run on the reconstruction, and on the mean, and measured the loss on the prose.",
    expected="a lower loss than with the mean",
    means="What the dictionary reconstructs is not what the model uses.",
)  # fmt: skip
def loss_inside(applied: Applied) -> Outcome:
    texts, sae = applied.setup.prompts.texts, applied.sae
    if texts is None or not can_splice(sae):
        raise Skip("it cannot be put into one model")
    ce = evaluate_in_model(sae, applied.setup.model, texts[:8])
    text = f"{ce.ce_clean:.2f} nats, {ce.ce_spliced:.2f} with the reconstruction, {ce.ce_mean:.2f} with the mean"
    if ce.ce_mean - ce.ce_clean < 0.02:
        raise Skip(f"the mean does as well, so nothing is judged ({text})")
    return ce.ce_spliced < ce.ce_mean, text


TRIALS = trials_of(sys.modules[__name__])


def checks_of_dictionary(setup: Setup, sae: SAE, card: CardScores | None = None) -> Iterator[Check]:
    """Yield the checks of a dictionary in a model, each as soon as it is done. Crosscoders are not checked."""
    trials = due(TRIALS, quick=setup.quick)
    if not _is_examined(sae):
        for trial in trials:
            yield trial.experiment.not_checked("a dictionary of several hook points is not examined")
        return
    yield from run_trials(trials, Applied(setup, sae, card or CardScores()))
