"""Checks that a fitted lens belongs to these weights, and reads better than no lens."""

from dataclasses import dataclass

import torch

from interp.doctor.trials import Outcome, Setup, Skip, trial
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.tuned_lens import TunedLens
from interp.models.adapter import final_norm_and_unembed, run_with_cache


@dataclass(frozen=True)
class FittedLens:
    """A lens in a set-up."""

    setup: Setup
    lens: TunedLens | JacobianLens


@trial(
    "lens", "weights", cheap=True,
    did="Compared the hash of the weights that the newest lens was fitted on with the model's.",
    expected="the same",
    means="The lens translates another model's residuals: its readings mean nothing here.",
)  # fmt: skip
def weights(fitted: FittedLens) -> Outcome:
    model_hash, lens_hash = fitted.setup.weight_hash, fitted.lens.settings.weight_hash
    return (
        model_hash == lens_hash,
        "the same" if model_hash == lens_hash else f"fitted on {lens_hash[:12]}, the model has {model_hash[:12]}",
    )


@trial(
    "lens", "held-out text",
    did="Read the residual of five layers on prose, through the lens and without, and compared with the output.",
    expected="nearer to the output through the lens than without it, on average over the layers",
    means="The lens is worse than none: it was fitted on other positions, another layer or too little text.",
)  # fmt: skip
def on_text(fitted: FittedLens) -> Outcome:
    setup, lens = fitted.setup, fitted.lens
    if setup.prompts.texts is None:
        raise Skip("the model has no tokenizer")
    model, rows = setup.model, setup.prompts.texts[:4]
    n = model.cfg.n_layers
    points = [f"blocks.{layer}.hook_resid_post" for layer in sorted({n * k // 6 for k in range(1, 6)})]
    output, values = run_with_cache(model, rows, points)
    truth = output.float().cpu()[:, 1:].log_softmax(-1)
    divergence = {"with": 0.0, "without": 0.0}
    with torch.no_grad():
        for point in points:
            resid = values[point][:, 1:].float()
            for way, read in (("with", lens.translate(point, resid)), ("without", resid)):
                logits = final_norm_and_unembed(model, read).float().cpu().log_softmax(-1)
                divergence[way] += float((truth.exp() * (truth - logits)).sum(-1).mean()) / len(points)
    summary = f"{divergence['with']:.2f} nats through the lens, {divergence['without']:.2f} without"
    return divergence["with"] < divergence["without"], summary
