"""Heads as retrieval: their own pattern recomputed, planted heads of known class, and SmolLM2 beside its twin."""

import json

import pytest
import torch
from architectures import NAMES, tiny

from interp.errors import ConfigError, PromptError
from interp.models.adapter import untrained_model
from interp.models.toys import planted_induction
from interp.studies.hopfield import MEASURES, measure_retrieval, queries_and_keys, retrieve, text_prompts
from interp.text.rows import Document


def random_prompts(n=3, length=12, d_vocab=50, seed=0):
    return torch.randint(d_vocab, (n, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_every_architectures_pattern_comes_out_of_its_queries_and_keys(name):
    prompt = random_prompts(1)
    causal = torch.ones(12, 12, dtype=torch.bool).tril()
    for q, k, pattern in queries_and_keys(tiny(name), prompt):
        assert q.shape == k.shape == (4, 12, 8), "grouped keys are repeated for every head"
        for head in range(4):
            found = retrieve(k[head], q[head], 8**-0.5, visible=causal)
            torch.testing.assert_close(found.weights.float(), pattern[head], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["native-rms", "llama-gqa"])
def test_no_step_of_any_head_raises_the_energy(name):
    found = measure_retrieval(tiny(name), random_prompts(), untrained=tiny(name))
    assert found.energy_rise == 0
    assert (found.energy_after <= found.energy).all()
    assert (found.energy_after > 0).all()
    assert found.pattern_error < 1e-5


def test_planted_heads_retrieve_one_pattern_each_and_their_blank_twin_averages():
    model, blank = planted_induction(), planted_induction()
    with torch.no_grad():
        for parameter in blank.parameters():
            parameter.zero_()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.stack([torch.randperm(15, generator=generator).repeat(2) for _ in range(4)])  # one match each
    found = measure_retrieval(model, tokens, first_query=20, untrained=blank)
    assert found.counts() == {"single pattern": 2, "metastable": 0, "global averaging": 0}
    assert found.concentrates.all()
    assert found.n_patterns == pytest.approx(1, abs=1e-3)
    assert found.entropy == pytest.approx(0, abs=1e-3)
    even = measure_retrieval(blank, tokens, first_query=20, untrained=blank)
    assert even.counts()["global averaging"] == 2
    assert not even.concentrates.any()
    assert even.score_spread == pytest.approx(0, abs=1e-6)
    assert even.entropy == pytest.approx(1)


def test_an_untrained_model_concentrates_nowhere(tiny_model):
    tokens = random_prompts(4, 40, 200)
    for seed in range(3):
        found = measure_retrieval(untrained_model(tiny_model, 10 + seed), tokens, seed=seed)
        assert not found.concentrates.any()
        assert found.counts()["global averaging"] == 8


def test_without_the_first_key_the_others_share_what_is_left():
    prompts = random_prompts()
    whole = measure_retrieval(tiny("native-ln"), prompts, untrained=tiny("native-ln"))
    rest = measure_retrieval(tiny("native-ln"), prompts, skip_first=True, untrained=tiny("native-ln"))
    assert rest.first_share == pytest.approx(whole.first_share), "of the whole pattern either way"
    q, k, _ = next(iter(queries_and_keys(tiny("native-ln"), prompts[:1])))
    visible = torch.ones(12, 12, dtype=torch.bool).tril()[6:]
    visible[:, 0] = False
    alone = retrieve(k[1], q[1, 6:], 8**-0.5, visible=visible)
    at = MEASURES.index("n_patterns")
    assert rest.per_prompt[at, 0, 1, 0] == pytest.approx(float(alone.n_patterns.median()))


def test_a_value_is_saved_with_every_head(tmp_path):
    found = measure_retrieval(tiny("native-ln"), random_prompts(), untrained=tiny("native-ln"))
    found.save(tmp_path / "heads.json")
    read = json.loads((tmp_path / "heads.json").read_text())
    assert len(read["heads"]) == 8
    assert {"name", "kind", "concentrates", *MEASURES} <= set(read["heads"][0])
    assert read["settings"]["beta"] == pytest.approx(8**-0.5)


def test_what_cannot_be_measured_is_refused(tiny_model):
    with pytest.raises(PromptError, match="two prompts"):
        measure_retrieval(tiny_model, random_prompts(1))
    with pytest.raises(PromptError, match="first query"):
        measure_retrieval(tiny_model, random_prompts(), first_query=0)
    with pytest.raises(PromptError, match="context"):
        measure_retrieval(tiny_model, random_prompts(2, 300))
    with pytest.raises(PromptError, match="found 1"):
        text_prompts(tiny_model, [Document("a long enough text", "1", "a"), Document("no", "2", "a")], 2, 10)
    norms = tiny_model.blocks[0].attn
    assert norms is not None
    with pytest.raises(ConfigError, match="eager"):
        list(queries_and_keys(_Fused(tiny_model), random_prompts(1)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tokens: tokens + 45, "from 0 to 49"),
        (lambda tokens: tokens - 50, "from 0 to 49"),
        (lambda tokens: tokens.float(), "int64"),
        (lambda tokens: tokens.numpy(), "ndarray"),
        (lambda tokens: tokens[0], "two prompts"),
        (lambda tokens: tokens[:, :1], "needs 2 tokens"),
    ],
)
def test_prompts_that_the_model_cannot_read_are_refused(change, expected):
    with pytest.raises(PromptError, match=expected):
        measure_retrieval(tiny("native-ln"), change(random_prompts()), untrained=tiny("native-ln"))


class _Fused:
    """A model whose attention kernel keeps its pattern to itself."""

    def __init__(self, model):
        self.cfg = model.cfg
        self.hook_dict = {name: point for name, point in model.hook_dict.items() if "pattern" not in name}
        self.modules = model.modules
        self.blocks = model.blocks
        self.original_model = model.original_model


@pytest.mark.slow
@pytest.mark.real
def test_smollm2s_heads_concentrate_and_its_untrained_twins_average(smollm2):
    from interp.text.corpora import open_corpus

    tokens = text_prompts(smollm2, open_corpus("docstrings", seed=0), 4, 64)
    found = measure_retrieval(smollm2, tokens)
    assert found.pattern_error < 1e-5
    assert found.energy_rise < 1e-9
    assert found.concentrates.mean() > 0.9
    assert found.counts()["metastable"] > 200
    first, later = found.mass_share[0].mean(), found.mass_share[1:].mean()
    assert first > later + 0.15, "the first layer averages most, as in Ramsauer et al."
    null = measure_retrieval(untrained_model(smollm2, 7), tokens)
    assert null.counts() == {"single pattern": 0, "metastable": 0, "global averaging": 270}
    assert not null.concentrates.any()
