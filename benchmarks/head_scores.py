"""Cost of scoring all attention heads, relative to the forward pass that computes their attention.

All 270 heads of SmolLM2 are scored for the kinds on random tokens, on 16 prompts of 101 tokens. The baseline is the
bare eager forward pass on the same prompts. Drawing the prompts and their targets is not counted. Rounds alternate, and
the ratio is the median.
"""

from benchmarks.report import Result, interleaved, main, median_ratio

PROMPTS, LENGTH, REPEATS = 16, 101, 3


def run() -> list[Result]:
    """Measure the time to score all heads, relative to a bare eager forward pass."""
    import torch

    from interp.circuits.head_kinds import draw_prompts, pattern_scores, target_masks, target_weights
    from interp.models.adapter import bos_token_id, ordinary_tokens
    from interp.models.loading import load_model

    model = load_model("smollm2-135m", attention="eager")
    bos = bos_token_id(model)
    tokens, _ = draw_prompts(ordinary_tokens(model), bos, PROMPTS, LENGTH, 20, 50, 0)
    weights = target_weights(target_masks(tokens, bos))

    @torch.no_grad()
    def bare() -> None:
        model(tokens, use_cache=False)

    ours, plain = interleaved(
        lambda: pattern_scores(model, tokens, weights, PROMPTS), bare, repeats=REPEATS
    )  # fmt: skip
    return [
        Result(
            question="scores of all heads",
            ratio=median_ratio(ours, plain),
            target=1.3,
            against="the bare eager forward pass",
            lower_is_better=True,
            detail=f"{PROMPTS} prompts of {LENGTH} tokens, {min(ours):.2f} s against {min(plain):.2f} s",
        )
    ]


if __name__ == "__main__":
    main(run)
