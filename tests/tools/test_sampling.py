"""Sampled text: greedy sampling equals transformers' own, rows do not see each other, and short pieces are dropped."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from interp.errors import ConfigError
from tools.sampling import BLOCK, Opening, SampleConfig, sample_documents

END = 7


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    for weight in model.parameters():
        weight.data *= 3.0  # logits far enough apart for an unambiguous largest
    return model


def openings(n: int, seed: int = 1) -> list[Opening]:
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 9, (n,), generator=draw).tolist()
    return [Opening(torch.randint(8, 50, (size,), generator=draw).tolist()) for size in sizes]


GREEDY = {"length": 2 * BLOCK, "top_k": 1, "least": 1}


def test_greedy_documents_equal_those_of_transformers(llama):
    given = openings(9)
    found = {
        tuple(each.opening.tokens): each.tokens
        for each in sample_documents(llama, iter(given), SampleConfig(batch_size=4, **GREEDY), ends={END})
    }
    assert len(found) == 9
    for each in given:
        prompt = torch.tensor([each.tokens])
        whole = llama.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=2 * BLOCK + 1,
            eos_token_id=END, pad_token_id=END,
        )[0].tolist()  # fmt: skip
        document = found[tuple(each.tokens)]
        assert len(document) > len(each.tokens)
        assert whole[: len(document)] == document, "a row that began late was not to see what stood before it"
        ended = len(whole) > len(document) and whole[len(document)] == END
        assert ended or len(document) <= 2 * BLOCK + 1


def test_documents_do_not_depend_on_the_batch(llama):
    given = openings(12, seed=3)
    runs = []
    for size in (1, 5):
        config = SampleConfig(batch_size=size, **GREEDY)
        found = sample_documents(llama, iter(given), config, ends={END})
        runs.append({tuple(each.opening.tokens): each.tokens for each in found})
    for opening, document in runs[0].items():
        n = min(len(document), len(runs[1][opening]))
        assert document[:n] == runs[1][opening][:n]


def test_samples_follow_the_temperature_and_the_nucleus(llama):
    start = [9, 10, 11]
    with torch.no_grad():
        p = (llama(torch.tensor([start])).logits[0, -1] / 2.0).softmax(-1)
    values, ids = p.sort(descending=True)
    inside = ids[values.cumsum(0) - values < 0.8].tolist()
    config = SampleConfig(batch_size=64, length=8, least=1, top_k=50, top_p=0.8, seed=5)
    given = (Opening(start, temperature=2.0) for _ in range(1280))
    first = [each.tokens[3] for each in sample_documents(llama, given, config, ends={END}) if len(each.tokens) > 3]
    assert set(first) <= set(inside)
    likely = inside[0]
    expected = float(values[0] / values[: len(inside)].sum())
    assert first.count(likely) / len(first) == pytest.approx(expected, abs=4 * (expected / len(first)) ** 0.5)


def test_the_same_seed_gives_the_same_documents(llama):
    def run(seed: int) -> list[list[int]]:
        config = SampleConfig(batch_size=3, length=24, least=4, seed=seed)
        return [each.tokens for each in sample_documents(llama, iter(openings(6)), config)]

    assert run(0) == run(0) != run(1)


def test_an_instruction_is_not_part_of_its_document_and_short_ones_are_dropped(llama):
    given = [Opening([9, 10, 11, 12], kept=4, about="asked")]
    config = SampleConfig(batch_size=1, length=20, least=6, top_k=1)
    [document] = sample_documents(llama, iter(given), config)
    assert document.opening.about == "asked"
    assert len(document.tokens) == 17, "all that was sampled, and nothing of the instruction"
    always = set(range(50))
    assert not list(sample_documents(llama, iter(given), config, ends=always))


def test_the_models_own_attention_is_back_afterwards(llama):
    list(sample_documents(llama, iter(openings(2)), SampleConfig(batch_size=2, length=16, least=2)))
    assert llama.config._attn_implementation == "eager"


def test_an_opening_without_room_is_refused(llama):
    with pytest.raises(ConfigError, match="an opening has 30 tokens"):
        list(sample_documents(llama, iter([Opening([9] * 30)]), SampleConfig(length=32, least=8)))
    with pytest.raises(ConfigError, match="sampling needs"):
        SampleConfig(length=8, least=8)
