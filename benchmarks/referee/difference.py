"""Cases of differences: two tiny models behave differently, and one part is claimed to be what differs.

In the tuned model one part is trained until answers are `GAIN` nats more probable after their prompts; `effect` is the
share of that change that is kept. Another part is changed by the same fraction of its norm, and every weight moves at
random, as it would in training. Three continuations of the base move alike without either change. The planted claim is
about the part that is trained on its answers, that of controls about the other: trained on other prompts and answers
(near miss; so is it where the claim is planted), changed at random (untrained), or changed by what training on the same
answers gives, shuffled within each matrix (shuffled). Judged by transplants of parts, as `workbench compare models`
does.
"""

from pathlib import Path

import torch

from benchmarks.referee.cases import Answer, Control, Details
from benchmarks.referee.small_models import shuffled
from interp.changes.comparison import Change
from interp.changes.transplant import Direction, log_prob_of_answers, transplants
from interp.models.hooked import HookedModel
from interp.models.identity import plain_parameters
from interp.models.small import SmallConfig, build_small, load_small, save_small
from interp.seeds import make_generator

CONFIG = SmallConfig(n_layers=2, d_model=32, n_heads=2, d_mlp=64, d_vocab=32, n_ctx=8)
PARTS = {"L0.attn": "layers.0.attn.", "L0.mlp": "layers.0.mlp.", "L1.attn": "layers.1.attn.", "L1.mlp": "layers.1.mlp."}
"""Parts that may differ, in the order of the model, and how their weights' names begin."""
N_PROMPTS, N_CONTINUATIONS = 16, 3
GAIN, STEPS, RATE = 1.0, 60, 1e-3
DRIFT = 0.02
"""Size of the random change of every weight matrix, as a fraction of its own norm."""


def write(folder: Path, control: Control, effect: float, seed: int) -> Details:
    """Write a base, a tuned model and continuations of the base, and say which part makes the difference."""
    generator = make_generator(seed, "difference")
    right, other = [[*PARTS][at] for at in torch.randperm(len(PARTS), generator=generator)[:2]]
    asked, elsewhere = _draw(generator), _draw(generator)
    base, tuned = (build_small(CONFIG, seed=seed, device="cpu", dtype=torch.float32) for _ in range(2))
    change = _trained(seed, right, *asked)
    beside = _trained(seed, other, *(asked if control == "shuffled" else elsewhere))
    if control == "untrained":
        beside = [torch.randn(value.shape, generator=generator) for value in beside]
    if control == "shuffled":
        beside = [shuffled(value, generator) for value in beside]
    with torch.no_grad():
        mine, others = _weights(tuned, right), _weights(tuned, other)
        far = _norm(change) / _norm(mine) * _norm(others) / _norm(beside)
        for values, moved, by in ((mine, change, 1.0), (others, beside, far)):
            for value, step in zip(values, moved, strict=True):
                value += (effect if control == "planted" else 1.0) * by * step
    _drift(tuned, generator)
    save_small(base, CONFIG, folder / "base")
    save_small(tuned, CONFIG, folder / "tuned")
    for number in range(N_CONTINUATIONS):
        again = build_small(CONFIG, seed=seed, device="cpu", dtype=torch.float32)
        _drift(again, generator)
        save_small(again, CONFIG, folder / f"continuation-{number}")
    name, (prompts, answers) = right if control == "planted" else other, asked
    return {"part": name, "prompts": prompts.tolist(), "answers": answers.tolist()}


def _draw(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw prompts `[n_prompts, pos]`, and an answer to each."""
    prompts = torch.randint(CONFIG.d_vocab, (N_PROMPTS, CONFIG.n_ctx), generator=generator)
    return prompts, torch.randint(CONFIG.d_vocab, (N_PROMPTS,), generator=generator)


def _weights(model: HookedModel, part: str) -> list[torch.Tensor]:
    return [value for name, value in plain_parameters(model.original_model) if name.startswith(PARTS[part])]


def _norm(values: list[torch.Tensor]) -> float:
    return float(torch.cat([value.detach().flatten() for value in values]).norm())


def _trained(seed: int, part: str, prompts: torch.Tensor, answers: torch.Tensor) -> list[torch.Tensor]:
    """Return the change of each weight of a part that makes the answers `GAIN` nats more probable."""
    model = build_small(CONFIG, seed=seed, device="cpu", dtype=torch.float32)
    values = _weights(model, part)
    before = [value.detach().clone() for value in values]
    optimiser, first = torch.optim.Adam(values, lr=RATE), None
    with torch.enable_grad():
        for _ in range(STEPS):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(prompts)[:, -1], answers)
            first = loss.item() if first is None else first
            if first - loss.item() >= GAIN:
                break
            loss.backward()
            optimiser.step()
    return [value.detach() - old for value, old in zip(values, before, strict=True)]


@torch.no_grad()
def _drift(model: HookedModel, generator: torch.Generator) -> None:
    """Add noise to every weight, `DRIFT` of the norm of each matrix."""
    for _, value in plain_parameters(model.original_model):
        noise = torch.randn(value.shape, generator=generator)
        value += DRIFT * value.norm() * noise / noise.norm()


def answer(folder: Path, details: Details) -> Answer:
    """Transplant every part in both directions; supported where the claimed one is found in both."""
    prompts, answers = torch.tensor(details["prompts"]), torch.tensor(details["answers"])
    base, tuned = load_small(folder / "base"), load_small(folder / "tuned")
    others = [load_small(path) for path in sorted(folder.glob("continuation-*"))]
    found = transplants(base, tuned, log_prob_of_answers(prompts, answers), continuations=others, name="answers")
    if not (gap := found.gap).differ:
        why = f"the models differ by {gap.tuned - gap.base:.3g} nats, continuations by up to {gap.bound:.3g}"
        return Answer(outcome="not supported", why=why)
    return judged(found.of(details["part"]))


def judged(part: dict[Direction, Change]) -> Answer:
    """Return the verdict on a part from its transplants: found in both directions, in one, or in none."""
    carried, removed = part["carried"], part["removed"]
    outcome = ("not supported", "undecided", "supported")[carried.found + removed.found]
    why = (
        f"{carried.name} carries {carried.value:.2f} (null up to {carried.bound:.2f}) and removes "
        f"{removed.value:.2f} (null up to {removed.bound:.2f}) of the difference"
    )
    return Answer(outcome=outcome, why=why)
