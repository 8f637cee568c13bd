"""What a graph explains where nothing is named; and effects of nodes against small changes in the model itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.text.function_words import content_word
from interp.tracing._targets import default_contrast
from interp.tracing.edges import System
from interp.tracing.effects import ablation, first_order_effects, measure, predicted_effects
from interp.tracing.frozen import FrozenModel
from interp.tracing.graph import LikelyToken, target_rule
from interp.tracing.replacement import Neurons
from interp.tracing.trace import assemble, trace
from tests.interp.architectures import NAMES
from tests.interp.tracing_graphs import CONFIG, aim_of, planted, system_of


def likely(texts, shares):
    """The likeliest tokens, numbered from 100."""
    rows = enumerate(zip(texts, shares, strict=True), 100)
    return [LikelyToken(text=text, token=token, probability=share) for token, (text, share) in rows]


@pytest.mark.parametrize(
    ("texts", "shares", "chosen"),
    [
        ([" the", " a", " Paris", ",", " Lyon"], [0.4, 0.2, 0.1, 0.1, 0.05], (2, 4)),
        ([" Paris", " the", "Paris", " paris", " Rome"], [0.7, 0.1, 0.05, 0.04, 0.01], (0, 4)),
        ([" the", " Paris", " a"], [0.5, 0.3, 0.1], (1, 0)),  # no second content word
        ([" his", " a", " crown"], [0.6, 0.3, 0.001], (0, 1)),  # what the model hardly says is not explained
        (['")', ",", " np"], [0.9, 0.05, 0.01], (0, 1)),
        (["ing", " ing"], [0.6, 0.4], (1, None)),  # the same word in another spelling
        ([" a"], [1.0], (0, None)),
    ],
)
def test_by_default_the_likeliest_content_word_is_explained_against_the_next(texts, shares, chosen):
    target = default_contrast(likely(texts, shares))
    first, against = chosen
    assert (target.token, target.contrast) == (100 + first, None if against is None else 100 + against)
    assert target.sides == (texts[first], "" if against is None else texts[against])


@pytest.mark.parametrize(("against", "target"), [(" Lyon", " Paris"), (" paris", " Rome"), (" the", " Paris")])
def test_against_a_stated_contrast_the_likeliest_other_content_word_is_explained(against, target):
    shown = likely([" the", " Paris", "Paris", " Rome"], [0.5, 0.3, 0.1, 0.05])
    aim = default_contrast(shown, LikelyToken(text=against, token=7))
    assert (aim.sides, aim.contrast) == ((target, against), 7)


def test_words_are_told_from_endings_marks_and_function_words():
    assert all(map(content_word, [" cold", "Paris", " Über", " E", "\nYes"]))
    assert not any(map(content_word, ["ing", " The", "The", " 5", ",", " ", "", " it's", " of"]))


@pytest.fixture
def says_the(monkeypatch):
    """A planted model that says token 7 (` the`) first, then 4 (` cold`), then 9 (` warm`)."""
    texts = {7: " the", 4: " cold", 9: " warm"}

    def strings(_, ids):
        return [texts.get(int(token), f"-{int(token)}") for token in torch.as_tensor(ids).flatten()]

    monkeypatch.setattr("interp.tracing._targets.token_strings", strings)
    model = planted()
    with torch.no_grad():
        for token, weight in ((7, 0.1), (4, 0.09), (9, 0.08)):
            model.unembed.W_U[2, token] = weight
    return model


def test_a_traced_prompt_stores_its_contrast_and_others_are_asked_for(says_the):
    prompt, config = torch.tensor([[0, 3, 5]]), replace(CONFIG, effects=0)
    graph = trace(says_the, prompt, Neurons(), config)
    (target,) = graph.targets
    assert (target.label, target.token, target.contrast) == (" cold -  warm", 4, 9)
    assert graph.settings.target is None
    assert "likeliest content word" in " ".join(graph.details())
    assert [one.text for one in graph.run.candidates[:3]] == [" the", " cold", " warm"]
    chances = [one.probability for one in graph.run.candidates]
    assert chances == sorted(chances, reverse=True)
    assert graph.probabilities == (pytest.approx(chances[1]),)
    effects = {node.id: node.effects for node in graph.nodes}
    assert effects["feature:1:2:2"] == pytest.approx([36 * 0.01], rel=1e-5)
    several = trace(says_the, prompt, Neurons(), replace(config, max_logits=2))
    assert [aim.label for aim in several.targets] == [" the", " cold"]
    assert all(len(node.effects) == 2 for node in several.nodes if node.kind != "logit")
    assert target_rule(several) == ""


@pytest.mark.parametrize("dictionary", ["neurons", "jumprelu skip", "cross-layer", "before the norm"])
@pytest.mark.parametrize("name", NAMES)
def test_the_effect_of_a_latent_is_that_of_a_small_change_with_nothing_frozen(name, dictionary):
    system = system_of(name, dictionary)
    reads = aim_of(system).starts.read
    effects = first_order_effects(system, reads)
    tried, step = effects[0, : system.n_features].abs().topk(8).indices.tolist(), 0.01
    runs = [[replace(ablation(system, i), action="scale", amount=1 + sign * step)] for i in tried for sign in (1, -1)]
    for read, expected in zip(reads, effects, strict=True):
        above, below = measure(system, runs, read).view(-1, 2).T
        torch.testing.assert_close((above - below) / (2 * step), expected[tried], rtol=0.02, atol=2e-3)


def test_without_norms_gates_and_attention_both_predictions_are_one():
    system = System(FrozenModel(planted(), torch.tensor([[0, 3, 5]])), Neurons())
    aim = aim_of(system)
    along = predicted_effects(assemble(system, aim, CONFIG), system.layer.numpy(), system.activation.numpy())
    effects = first_order_effects(system, aim.starts.read)
    np.testing.assert_allclose(effects[0, : system.n_features], along, rtol=1e-5)
