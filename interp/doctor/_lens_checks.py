"""Checks that a fitted lens belongs to these weights, and reads better than no lens and than a constant."""

from dataclasses import dataclass

import torch
from torch import Tensor

from interp.doctor.trials import Outcome, Setup, Skip, trial
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.tuned_lens import TunedLens
from interp.models.adapter import final_norm_and_unembed, run_with_cache

MARGIN = 0.01
"""fraction of the distance of a constant by which a lens has to be nearer, which by rounding alone none is"""


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
    did="Read the residual of five layers on prose through the lens, without it, and as a constant, the mean residual.",
    expected="nearer to the output through the lens than without it and than the mean, on average over the layers",
    means="The lens is worse than none, or than a constant: it was fitted on other positions, another layer or too "
    "little text.",
)  # fmt: skip
def on_text(fitted: FittedLens) -> Outcome:
    setup, lens = fitted.setup, fitted.lens
    if setup.prompts.texts is None:
        raise Skip("the model has no tokenizer")
    model, rows = setup.model, setup.prompts.texts[:4]
    n = len(lens.layers)
    points = [lens.layers[number].hook_point for number in sorted({n * k // 6 for k in range(1, 6)})]
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    output, values = run_with_cache(model, rows, [*points, last])
    truth = output.float().cpu()[:, 1:].log_softmax(-1)
    ends = values[last][:, 1:].float().mean(1)
    others = (ends.sum(0) - ends) / max(1, len(ends) - 1)

    def nats(resid: Tensor) -> float:
        logits = final_norm_and_unembed(model, resid).float().cpu().log_softmax(-1)
        return float((truth.exp() * (truth - logits)).sum(-1).mean())

    with torch.no_grad():
        resids = {point: values[point][:, 1:].float() for point in points}
        through = sum(nats(lens.translate(point, resid)) for point, resid in resids.items()) / len(points)
        without = sum(nats(resid) for resid in resids.values()) / len(points)
        constants = [others[:, None]]
        if isinstance(lens, JacobianLens):
            constants.append(torch.from_numpy(lens.end).to(others.device)[None, None])
        mean = min(nats(constant) for constant in constants)
    summary = f"{through:.2f} nats through the lens, {without:.2f} without, {mean:.2f} from the mean alone"
    return through < without and through < (1 - MARGIN) * mean, summary
