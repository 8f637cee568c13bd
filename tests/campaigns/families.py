"""Which analysis runs on which model? Each is tried on a tiny untrained model of every family.

    python -m tests.campaigns.families [--report] [--only gpt2 ...]

`yes`: it ran, with finite numbers. `no`: it raised an error of the workbench, whose sentence stands below the table.
Anything else ends the campaign. Whether numbers are right is tested elsewhere, on `tests.interp.architectures`.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

import interp
from interp.errors import UsageError
from interp.models.hooked import HookedModel
from interp.patching.task import Task
from tests.campaigns import report
from tests.campaigns.set_ups import FAMILIES, write_family

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "models.md"


@dataclass(frozen=True)
class Subject:
    """A model with what the analyses need of text."""

    model: HookedModel
    tokens: Int[Tensor, "batch pos"]
    task: Task


def last_logit(logits: Tensor) -> Tensor:
    return logits[:, -1, 7] - logits[:, -1, 9]


def steered(subject: Subject) -> Tensor:
    width = subject.model.cfg.d_model
    step = interp.Intervention(
        target=interp.Direction(
            hook_point="blocks.1.hook_resid_post", vector=np.eye(width, dtype=np.float32)[0], origin="axis 0"
        ),
        amount=3.0,
    )
    with interp.intervened(subject.model, [step]):
        return subject.model(subject.tokens)


def lens_of(subject: Subject) -> Any:
    contexts = torch.randint(2, 300, (12, 16), generator=torch.Generator().manual_seed(1))
    config = interp.JacobianLensConfig(rounds=2, texts=4, skip=2, heldout_positions=16)
    return interp.fit_jacobian_lens(subject.model, contexts[:8], contexts[8:], config)


ANALYSES: dict[str, Callable[[Subject], Any]] = {
    "record, SAEs, logit lens": lambda s: interp.logit_lens(s.model, s.tokens[:1]),
    "steer": steered,
    "Jacobian lens": lens_of,
    "heads": lambda s: interp.score_heads(s.model, interp.HeadScoresConfig(n_prompts=2, seeds=(0,))),
    "ablate": lambda s: interp.ablate(s.model, s.tokens, ["L0H0", "L1MLP"]),
    "patch": lambda s: interp.activation_patching(s.model, (s.tokens, s.tokens.flip(1)), last_logit),
    "patch patterns": lambda s: interp.activation_patching(
        s.model, (s.tokens, s.tokens.flip(1)), last_logit, what="pattern", by_position=False
    ),
    "direct logit attribution": lambda s: interp.direct_logit_attribution(s.model, s.tokens, 7, 9),
    "path patching": lambda s: interp.path_patch(
        s.model, s.tokens, s.tokens.flip(1), last_logit, sender="L0H0", receivers=[("L1H0", "k")]
    ),
    "circuits of edges": lambda s: interp.attribute_edges(s.model, s.task, steps=2),
    "attention scores explained": lambda s: interp.explain_score(s.model, s.tokens[:1], "L1H0", query=5, key=2),
    "attribution graph": lambda s: interp.trace(
        s.model, s.tokens[:1], interp.Neurons(), interp.TraceConfig(max_feature_nodes=16, effects=4)
    ),
}


def subject_of(family: str, folder: Path) -> Subject:
    model = interp.load_model(str(write_family(family, folder / family)))
    tokens = torch.randint(2, 300, (4, 8), generator=torch.Generator().manual_seed(0))
    return Subject(model, tokens, interp.make_task("induction", model, n_prompts=4, check_gap=False))


def tried(subject: Subject, analysis: str) -> str:
    """Return "" where it runs, or else the sentence of its refusal."""
    try:
        result = ANALYSES[analysis](subject)
    except UsageError as error:
        return str(error)
    if isinstance(result, Tensor):
        assert torch.isfinite(result).all()
    return ""


def table(families: Sequence[str]) -> list[str]:
    """Return the table of analyses by families, and the sentences of what was refused."""
    reasons: dict[str, int] = {}
    lines = [f"| analysis | {' | '.join(families)} |", "|---|" + ":-:|" * len(families)]
    with tempfile.TemporaryDirectory() as folder:
        subjects = [subject_of(family, Path(folder)) for family in families]
        for analysis in ANALYSES:
            refusals = [tried(subject, analysis) for subject in subjects]
            cells = [f"no ({reasons.setdefault(why, len(reasons) + 1)})" if why else "yes" for why in refusals]
            lines.append(f"| {analysis} | {' | '.join(cells)} |")
    return [*lines, "", *(f"{number}. {why}" for why, number in reasons.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", action="store_true", help="write the table into the page")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    options = parser.parse_args()
    lines = table(options.only)
    print("\n".join(lines))
    if options.report:
        report.put("families", ["", *lines, ""], PAGE)


if __name__ == "__main__":
    main()
