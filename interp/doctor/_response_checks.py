"""Checks that an edit at every hook point acts from its position on, and by as much as its gradient says.

Noise is added at each hook point in a row of its own, and subtracted in a second pass. Half the difference of a random
sum of logits is the finite difference, which has to be the gradient times the noise (one backward pass). A hook or
module that detaches changes no forward pass: what lies before it has a gradient that lacks a path, or none. Where the
two are apart, a quarter of the noise decides: sharp attention bends the response, but lacks a path at no size. The
logits are those of a sample of the vocabulary: every path to the output reaches all of them.
"""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.doctor._hook_checks import editable_points, edited_prompt, logits_of
from interp.doctor.trials import Outcome, Setup, Skip, trial
from interp.models.adapter import MASKED_SCORE, Hook, run_with_hooks, without_cache
from interp.models.passes import capture
from interp.names import parse_hook_point
from interp.seeds import make_generator

AT, ROWS, LOGIT_VALUES = 2, 128, 1 << 26
"""The position that is edited; most hook points of a pass, each edited in a row of its own, and most of its logits."""
LESS = 0.25
"""Part of the noise that decides where gradient and finite difference are apart."""
WORDS = 1 << 13
"""Tokens of the vocabulary, drawn by the seed, whose logits are computed here."""
SMALL = 10_000_000
"""Parameters of the largest float32 model that is run in float64 here."""


@dataclass(frozen=True)
class NoiseStep:
    """Size of the noise, and how near gradients have to come."""

    size: float
    """Fraction of the root mean square of the values."""
    tolerance: float
    """Largest difference, as a fraction of the larger number."""
    floor: float
    """Difference that is rounding, in units of the spread of the random sum."""


STEPS = {
    "small": NoiseStep(1e-3, 0.05, 1e-6),
    "large": NoiseStep(1e-2, 0.1, 5e-6),
    "16 bits": NoiseStep(0.5, float("inf"), 0.0),
}


@dataclass(frozen=True)
class Response:
    """Change of the logits by the noise at one hook point."""

    hook_point: str
    before: float
    """Largest change of a logit before the position."""
    after: float
    measured: float
    """Finite difference of the random sum."""
    predicted: float
    """Gradient times noise."""
    typical: float
    """Size of the prediction if its terms had random signs: a sum that cancels is not judged by itself."""

    def differs(self, step: NoiseStep, spread: float) -> bool:
        """Return whether gradient and finite difference are apart by more than the step allows."""
        largest = max(abs(self.measured), abs(self.predicted), self.typical)
        return abs(self.measured - self.predicted) > step.tolerance * largest + step.floor * spread


def _step(setup: Setup) -> NoiseStep:
    if setup.model.cfg.dtype != torch.float32:
        return STEPS["16 bits"]
    n = sum(parameter.numel() for parameter in setup.model.original_model.parameters())
    return STEPS["small" if n <= SMALL else "large"]


@contextlib.contextmanager
def _in_float64(setup: Setup) -> Iterator[None]:
    """Run a small model in float64, and put its own tensors back."""
    model = setup.model.original_model
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.dtype == torch.float32]
    originals = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors if _step(setup) is STEPS["small"] else []:
            tensor.data = tensor.data.double()
        yield
    finally:
        for tensor, data in zip(tensors, originals, strict=True):
            tensor.data = data


@contextlib.contextmanager
def _sampled_words(setup: Setup) -> Iterator[None]:
    """Let the model compute the logits of `WORDS` tokens only, and put its unembedding back."""
    linear, n = setup.model.unembed.original_component, setup.model.cfg.d_vocab
    whole = dict([*linear.named_parameters(recurse=False), *linear.named_buffers(recurse=False)])
    if n <= WORDS or any(len(value) != n for value in whole.values()):
        yield
        return
    drawn = torch.randperm(n, generator=make_generator(setup.seed, "doctor", "words"))[:WORDS]
    try:
        for name, value in whole.items():
            part = value.detach()[drawn.to(value.device)]
            setattr(linear, name, torch.nn.Parameter(part, False) if isinstance(value, torch.nn.Parameter) else part)
        yield
    finally:
        for name, value in whole.items():
            setattr(linear, name, value)


def _at(row: Tensor, length: int) -> Tensor:
    """Return a view of the edited position: the first axis of `length` is that of positions, in patterns `[head, dest,
    src]` that of the reading one."""
    return row.select(row.shape.index(length), AT)


def _noise(part: Tensor, setup: Setup, name: str) -> Tensor:
    """Return noise for the values of a hook point at the edited position; 0 where scores are masked."""
    finite = part.isfinite() & (part > MASKED_SCORE)
    values, noise = part[finite], torch.zeros_like(part)
    drawn = torch.randn(values.shape, generator=make_generator(setup.seed, "doctor", "noise", name)).to(values)
    noise[finite] = _step(setup).size * values.square().mean().sqrt().clamp_min(1e-3) * drawn
    return noise


def _shaken(setup: Setup, row: int, name: str, length: int, factor: float) -> Hook:
    def hook(value: Tensor, hook: object) -> Tensor:
        value = value.clone()
        part = _at(value[row], length)
        part += factor * _noise(part, setup, name)
        return value

    return hook


def _weights(setup: Setup, logits: Tensor) -> Tensor:
    """Return the factors of the random sum, `[pos, d_vocab]`, 0 before the edited position."""
    drawn = torch.randn(logits.shape[1:], generator=make_generator(setup.seed, "doctor", "sum")).to(logits).double()
    drawn[:AT] = 0
    return drawn


def _predicted(setup: Setup, names: list[str]) -> dict[str, tuple[float, float]]:
    """Return gradient times noise at every hook point, and its typical size, in the order of a pass."""
    values: dict[str, Tensor] = {}

    def kept(name: str) -> Hook:
        def hook(value: Tensor, hook: object) -> Tensor:
            values[name] = value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
            return values[name]

        return hook

    row = edited_prompt(setup)
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an edited norm differs by rounding
        hooks = [(name, kept(name)) for name in names]
        logits = run_with_hooks(setup.model, row, hooks, **without_cache(setup.model))
        total = (logits[0].double() * _weights(setup, logits)).sum()
        gradients = torch.autograd.grad(total, list(values.values()), allow_unused=True)
    predictions = {}
    for (name, value), gradient in zip(values.items(), gradients, strict=True):
        part = _at(value.detach()[0], row.shape[1])
        noise = _noise(part, setup, name).double()
        slope = torch.zeros_like(noise) if gradient is None else _at(gradient[0], row.shape[1]).double()
        terms = torch.where(noise != 0, slope * noise, 0)
        predictions[name] = float(terms.sum()), float(terms.square().sum().sqrt())
    return predictions


def _edited(setup: Setup, names: list[str], factor: float) -> Tensor:
    """Return the logits with noise, times a factor, at each hook point in a row of its own.

    The names are in the order of a pass: it begins at the block of the first, since earlier ones stay as they are.
    """
    row, layer = edited_prompt(setup), parse_hook_point(names[0]).layer or 0
    point = f"blocks.{layer}.hook_resid_pre"
    value = capture(setup.model, row, [point])[point] if layer else row
    hooks = [(name, _shaken(setup, at, name, row.shape[1], factor)) for at, name in enumerate(names)]
    return logits_of(setup, value.repeat(len(names), *[1] * (value.ndim - 1)), hooks, layer)


@torch.no_grad()
def responses(setup: Setup) -> list[Response]:
    """Return the response to noise at every hook point, in the order of a pass; computed once."""
    if "responses" in setup.known:
        return setup.known["responses"]
    names = editable_points(setup)
    with _sampled_words(setup), _in_float64(setup):
        predicted = dict.fromkeys(names, (0.0, 0.0)) if _step(setup) is STEPS["16 bits"] else _predicted(setup, names)
        setup.known["responses"] = _measured(setup, predicted)
    return setup.known["responses"]


def _measured(setup: Setup, predicted: dict[str, tuple[float, float]], size: float = 1.0) -> list[Response]:
    """Return the responses to the noise times `size`, per unit of it, beside predictions by hook point."""
    names, rows = list(predicted), []
    together = max(1, min(ROWS, LOGIT_VALUES // (edited_prompt(setup).numel() * setup.model.cfg.d_vocab)))
    for start in range(0, len(names), together):
        part = names[start : start + together]
        more, less = (_edited(setup, part, factor) for factor in (size, -size))
        change = (more - less) / size
        sums = (change * _weights(setup, more).to(change)).sum((1, 2), dtype=torch.float64) / 2
        largest = change.abs().amax(-1)
        for at, name in enumerate(part):
            ends = float(largest[at, :AT].max()), float(largest[at, AT:].max())
            rows.append(Response(name, *ends, float(sums[at]), *predicted[name]))
    return rows


@trial(
    "hooks", "edited",
    did="At every hook point, added and subtracted noise at the third position of a prompt.",
    expected="logits change there or later, and not before",
    means="A hook that changes nothing is detached: ablations and steering there look like no effect. A change before "
    "the position means that positions are shifted or reach into the past.",
)  # fmt: skip
def edits(setup: Setup) -> Outcome:
    spread = float(setup.clean(setup.prompts.rows[0]).std())
    rows = responses(setup)
    idle = [response.hook_point for response in rows if not response.after > 1e-8 * spread]
    early = [response.hook_point for response in rows if response.before > max(1e-6 * spread, 1e-3 * response.after)]
    summary = f"{len(rows) - len(idle)} of {len(rows)} change the logits, {len(early)} of them before the position"
    return not idle and not early, summary + (f": {', '.join([*idle, *early][:4])}" if idle or early else "")


@trial(
    "hooks", "gradients",
    did="Compared the change of a random sum of logits by that noise with the gradient at the hook point.",
    expected=f"the same within {STEPS['large'].tolerance:.0%}; within {STEPS['small'].tolerance:.0%} for models of at "
    f"most {SMALL // 10**6} million parameters, which are run in float64",
    means="Gradients do not follow the forward pass: a hook or module after this hook point detaches. Attribution, "
    "edge scores and graphs, which rest on gradients, are wrong from there back.",
)  # fmt: skip
def gradients(setup: Setup) -> Outcome:
    step = _step(setup)
    if step is STEPS["16 bits"]:
        raise Skip("rounding to 16 bits hides small differences; examine the model in float32")
    rows = responses(setup)
    with torch.no_grad(), _sampled_words(setup), _in_float64(setup):
        logits = logits_of(setup, edited_prompt(setup), [])
        spread = float(logits.std() * _weights(setup, logits).norm())
        apart = {row.hook_point: (row.predicted, row.typical) for row in rows if row.differs(step, spread)}
        wrong = [row for row in _measured(setup, apart, LESS) if row.differs(step, spread / LESS)]
    summary = f"{len(rows) - len(wrong)} of {len(rows)} agree"
    if not wrong:
        return True, summary
    last = wrong[-1]
    return False, (
        f"{summary}; the last before the output that does not is {last.hook_point}: "
        f"{last.predicted:.2g} by its gradient, {last.measured:.2g} measured"
    )
