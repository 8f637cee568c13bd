"""Time of choosing a direction's layer and strength, against one pass of the whole model for every cell and example.

Six layers, eight strengths, 16 pairs of replies to prompts of about 12 tokens, SmolLM2-135M: what a script with a hook
would do, against what `interp.directions.choosing` does, which starts after the steered block, with many cells in one
batch, and computes logits where they are read. The rival runs a tenth of the cells. Both give the same numbers.
"""

import time

from benchmarks.report import Result, at_least, main

STRENGTHS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
STARTS = (
    "The film was", "Her song is", "The hotel was", "My day was", "The book is", "The new phone is", "The match was",
    "His speech was", "The cake was", "The garden looks", "The play was", "The party was", "The course was",
    "The view is", "The museum is", "The house is",
)  # fmt: skip


def run() -> list[Result]:
    """Measure the choice."""
    from interp import load_model

    model = load_model("smollm2-135m")
    return [_choice(model)]


def _choice(model) -> Result:
    """Measure the cells in one batch / one pass of the whole model each."""
    import numpy as np

    from interp.directions.choosing import Candidate, choose_steering, spread_layers
    from interp.directions.config import DirectionConfig
    from interp.directions.examples import ContrastPair, ContrastPairs
    from interp.directions.questions import neutral_text, reply_questions
    from interp.geometry.report import TEXT

    pairs = tuple(
        ContrastPair(prompt=start, towards=" great and lovely.", away=" awful and nasty.") for start in STARTS
    )
    examples = ContrastPairs(kind="replies", pairs=pairs, source="the benchmark")
    questions, neutral = reply_questions(model, examples), neutral_text(model, TEXT)
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((6, model.cfg.d_model))
    layers = [
        Candidate(point, vector / np.linalg.norm(vector), 5.0)
        for point, vector in zip(spread_layers(model), drawn, strict=True)
    ]
    # of a random direction no cell may be chosen at a damage of 0, so no null and no judgement is timed
    config = DirectionConfig(strengths=STRENGTHS, harmless=-1e9, n_random=1)
    started = time.perf_counter()
    choice = choose_steering(model, layers, questions, neutral, config=config)
    mine = time.perf_counter() - started
    started = time.perf_counter()
    gap = _one_by_one(model, layers, examples, choice.effect)
    rival = 10 * (time.perf_counter() - started)
    detail = f"{mine:.1f} s for 48 cells with damage; one by one {rival:.0f} s without; largest difference {gap:.1e}"
    return at_least("layers and strengths of a direction", rival / mine, 2.0, "a pass for every cell", detail)


def _one_by_one(model, layers, examples, effect) -> float:
    """Measure every tenth cell with a hook; return the largest difference of the mean effect."""
    import torch

    from interp.directions.sides import encode_sides
    from interp.interventions.apply import intervened
    from interp.interventions.intervention import Direction, Intervention

    def answer(example, steps) -> float:
        *sides, start = encode_sides(model, example, examples)
        total = []
        for ids in sides:
            tokens = torch.tensor([ids])
            with torch.no_grad(), intervened(model, steps):
                log_p = model(tokens)[0, :-1].log_softmax(-1)
            total.append(float(log_p.gather(1, tokens[0, 1:, None])[start - 1 :].mean()))
        return total[0] - total[1]

    chosen = examples.pairs[::2]
    plain = [answer(pair, []) for pair in chosen]
    gaps = []
    for number in range(0, 48, 10):
        i, j = divmod(number, 8)
        target = Direction(hook_point=layers[i].hook_point, vector=layers[i].vector, origin="drawn")
        steps = [Intervention(target=target, amount=STRENGTHS[j] * layers[i].unit)]
        moved = [answer(pair, steps) - before for pair, before in zip(chosen, plain, strict=True)]
        gaps.append(abs(sum(moved) / len(moved) - float(effect[i, j])))
    return max(gaps)


if __name__ == "__main__":
    main(run)
