"""Text that a model writes: its continuations while it is steered, and examples by another writer."""

import pytest
import torch
from test_directions import POINT, STARTS, D, planted_model, small

from interp.directions._samples import SAMPLE_TOKENS, continuations_of
from interp.directions.examples import ContrastPair, examples_of_trait
from interp.interventions.apply import intervened
from interp.interventions.arms import Arms, random_directions
from interp.interventions.intervention import Direction, Intervention, everywhere
from interp.models.adapter import to_tokens


@pytest.mark.parametrize("action", ["add", "set", "ablate"])
def test_continuations_are_those_of_a_plain_loop(action):
    model = small(1)
    vectors = random_directions(D, 3, 0)
    amounts = {"add": [4.0, -2.0, 0.5], "set": [5.0, 0.0, -5.0], "ablate": [0.0] * 3}[action]
    arms = Arms(POINT, torch.from_numpy(vectors).float(), torch.tensor(amounts), action)
    prompts = [to_tokens(model, each)[0] for each in ("One day", "It was", "No")]
    found = continuations_of(model, prompts, arms)
    for vector, amount, cell in zip(vectors, amounts, found, strict=True):
        step = Intervention(
            target=Direction(hook_point=POINT, vector=vector, origin="drawn"), action=action, amount=amount
        )
        for prompt, new in zip(prompts, cell, strict=True):
            tokens = prompt[None]
            with torch.no_grad(), intervened(model, everywhere(step, 2)):
                for _ in range(SAMPLE_TOKENS):
                    tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(-1)], 1)
            assert new.tolist() == tokens[0, len(prompt) :].tolist()


def test_another_writer_makes_the_examples_of_a_trait():
    def write(trait, starts):
        return [f" {trait} {i}" for i, _ in enumerate(starts)]

    found = examples_of_trait(planted_model(), "kind", "rude", STARTS, writer=write)
    assert len(found.pairs) == len(STARTS)
    assert found.pairs[1] == ContrastPair(prompt=STARTS[1], towards=" kind 1", away=" rude 1")
    assert "what another model writes as somebody who is kind, and who is rude" in found.source
