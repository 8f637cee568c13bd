"""Routes of a prompt: planted ones are found, untrained models show none, plain transformers cuts and swaps alike."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from make_routes import make_routes
from torch import Tensor

from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.lenses.jacobian_lens import JacobianLens
from interp.models.hooked import HookedModel, wrap_in_memory
from interp.models.loading import load_model
from interp.routes import cut as cutting
from interp.routes import find as finding
from interp.routes._words import word_spans
from interp.routes.carried import LostWords, unrelated_tokens
from interp.routes.cut import CleanRun, Cut, clean_run, cut_effects, first_position, run_cuts, run_rows
from interp.routes.find import edge_cuts, find_routes, question_run
from interp.routes.routes import Routes, RouteSettings, quoted
from interp.routes.swap import SwapRow, swap_pairs, swap_routes, swapped, values_of
from interp.workspace import Workspace
from tests.interp.architectures import ALL_NAMES, NORMED_KEYS, blank, tiny
from workbench.demo import DATA

INDUCTION = "0 15 5 4 3 13 1 15 5 4"
"""The last 4 is followed by 3: position 9 attends to position 4, which knows what came before it."""


def settings(text: str, **more: Any) -> RouteSettings:
    return RouteSettings(model="x", text=text, weight_hash="x", **more)


def routes_of(model: HookedModel, text: str, lens: JacobianLens | None = None, **more: Any) -> Routes:
    asked = settings(text, **more)
    return list(find_routes(question_run(model, asked), LostWords.of(model, lens), asked))[-1]


def run_of(model: HookedModel, n: int = 12) -> CleanRun:
    tokens = torch.randint(1, model.cfg.d_vocab, (1, n), generator=torch.Generator().manual_seed(1))
    return clean_run(model, tokens, joined=False)


def all_edges(run: CleanRun) -> Cut:
    return Cut(tuple(run.positions(*edge) for edge in run.edges()))


# Known answers


@pytest.mark.parametrize(
    ("spec", "edges"),
    [("planted:induction", [(4, 9), (3, 4)]), ("planted:copying", [(5, 9), (4, 5), (3, 5)])],
)
def test_the_planted_routes_are_found_and_are_enough(spec: str, edges: list[tuple[int, int]]) -> None:
    """The copying head reads two tokens behind the match, so three edges lead to its answer."""
    found = routes_of(load_model(spec), INDUCTION)
    assert found.answer == "3"
    assert [(route.source, route.destination) for route in found.drawn] == edges
    first, *before = found.drawn
    assert first.layers
    assert (first.layers.first, first.layers.last) == (1, 1)
    assert [(head.layer, head.head) for head in first.layers.heads] == [(1, 0)]
    assert all(route.layers and route.layers.last == 0 for route in before)
    assert found.enough
    assert sorted(found.enough.routes) == sorted(edges)
    assert found.enough.kl < 1e-3 < found.enough.kl_none
    assert min(found.enough.null) > 1


def test_swapped_values_of_the_first_layer_move_the_induction_head() -> None:
    """With the patterns held, other values of the previous token change nothing: the head reads them as its key."""
    model = load_model("planted:induction")
    run = question_run(model, settings(INDUCTION))
    other = question_run(model, settings(INDUCTION.replace("4 3", "9 3")))
    changed = swapped(run, [SwapRow(3, (4,), values_of(other, run.words[3]))])[0]
    assert run.log_probs[run.answer] - changed[run.answer] > 5
    attended = {}

    def swap(value: Tensor, hook: object) -> Tensor:
        value = value.clone()
        added = other.values["blocks.0.attn.hook_v"][0, 3] - run.values["blocks.0.attn.hook_v"][0, 3]
        value[0, 4] += (run.values["blocks.0.attn.hook_pattern"][0, :, 4, 3, None] * added).reshape(value[0, 4].shape)
        return value

    def see(value: Tensor, hook: object) -> None:
        attended["now"] = value[0, 0, 9, 4]

    def hold(value: Tensor, hook: object) -> Tensor:
        return run.values["blocks.1.attn.hook_pattern"]

    pattern, swapping = "blocks.1.attn.hook_pattern", ("blocks.0.attn.hook_z", swap)
    both = (model.run_with_hooks(run.tokens, fwd_hooks=[swapping, (pattern, hook)]) for hook in (see, hold))
    free, held = (logits[0, -1].log_softmax(-1) for logits in both)
    torch.testing.assert_close(free, changed, atol=1e-4, rtol=0)
    assert attended["now"] < 0.2 < 0.9 < run.values[pattern][0, 0, 9, 4]
    assert abs(held[run.answer] - run.log_probs[run.answer]) < 1e-4


def test_a_word_that_was_said_twice_is_cut_twice_at_once() -> None:
    found = routes_of(load_model("planted:induction"), "0 15 5 4 3 13 1 15 5 4 3 2 15 5 4")
    assert (found.drawn[0].source, found.drawn[0].destination, found.drawn[0].with_words) == (10, 14, (4,))


def test_of_a_long_prompt_only_edges_among_strong_words_and_into_the_last_are_cut(monkeypatch) -> None:
    monkeypatch.setattr(finding, "ALL_EDGES", 6)
    monkeypatch.setattr(finding, "MOST_SOURCES", 2)
    found = routes_of(load_model("planted:induction"), "0 15 5 4 3 13 1 15 5 4 3 2 15 5 4")
    assert len(found.words) - 2 <= found.measured < found.n_edges
    assert found.enough is None
    assert (found.drawn[0].source, found.drawn[0].destination, found.drawn[0].with_words) == (10, 14, (4,))
    with pytest.raises(PromptError, match="39 tokens"):
        routes_of(load_model("planted:induction"), " ".join(["1"] * 39))


def test_a_model_says_its_likeliest_answer_and_gives_another_a_chance() -> None:
    asked = make_routes()
    assert asked.headline().startswith("smollm2-135m says “Paris” (38%): ")
    assert replace(asked, says=asked.says[1:]).headline().startswith("smollm2-135m gives “Paris” 38.0%: ")


@pytest.mark.parametrize("text", ["the cat sat on a mat and the", "My name is Alice. I am Alice. Call me"])
def test_an_untrained_model_draws_no_arc(text: str) -> None:
    """Of 120 prompts of 60 untrained models one had an arc; the floor on KL is what keeps the others out."""
    found = [routes_of(load_model("small:mlp-2l", seed=seed), text) for seed in range(5)]
    assert [each.drawn for each in found] == [[]] * 5
    assert all("is needed for" in each.sentence for each in found)


def test_no_route_is_enough_for_a_bigram_model() -> None:
    model = blank(n_layers=2, d_model=32, n_heads=2, d_vocab=32, d_mlp=None, n_ctx=16)
    with torch.no_grad():
        model.embed.weight.copy_(4 * torch.eye(32))
        model.unembed.weight.copy_(torch.eye(32).roll(1, 0))
    found = routes_of(model, "1 2 3 4 5")
    assert (found.answer, found.routes) == ("6", ())
    assert found.enough
    assert found.enough.routes == ()
    assert found.sentence == "No route is needed for “6”: the last word alone leads to it."


# Arithmetic


@pytest.mark.parametrize("name", [*ALL_NAMES, *NORMED_KEYS])
def test_a_cut_changes_every_architecture_and_does_not_depend_on_what_is_computed_again(name: str, monkeypatch) -> None:
    run = run_of(tiny(name))
    assert cut_effects(run, [all_edges(run)])[0].kl > 1e-3
    cuts = [Cut((run.positions(s, d),), first=first) for s, d, first in ((7, 9, 0), (8, 11, 1), (5, 11, 1))]
    short = run_cuts(run, cuts)
    whole = run_rows(run, len(cuts), cutting._cutting(run, cuts, 0))
    torch.testing.assert_close(short, whole, atol=1e-4, rtol=0)
    assert (first_position(run, cuts) > 0) == ("native" not in name)
    effects = [each.effect for each in cut_effects(run, cuts)]
    assert effects == pytest.approx([float(run.log_probs[run.answer] - row[run.answer]) for row in whole], abs=1e-4)
    assert cut_effects(run, [Cut(())])[0].effect == pytest.approx(0, abs=1e-4)
    offered = cutting.available_hook_points
    monkeypatch.setattr(cutting, "available_hook_points", lambda m: {p for p in offered(m) if "attn_scores" not in p})
    torch.testing.assert_close(run_cuts(run, cuts), short, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["native-ln", "llama-gqa", "gemma-2"])
def test_the_values_of_the_same_word_change_nothing(name: str) -> None:
    run = run_of(tiny(name))
    rows = [SwapRow(source, tuple(range(source + 1, 12)), values_of(run, run.words[source])) for source in (2, 7)]
    torch.testing.assert_close(swapped(run, rows), run.log_probs.expand(2, -1), atol=1e-4, rtol=0)


def test_words_are_runs_of_letters_and_blanks_are_shown() -> None:
    texts = ["The", " Euro", "pe", "an", " U", ".", "S", ".", "\n", " 12", "th"]
    assert [text for _, text in word_spans(texts)] == ["The", "European", "U", ".", "S", ".", "↵", "12th"]
    assert word_spans(texts)[1][0] == range(1, 4)
    assert len(word_spans(texts, joined=False)) == len(texts)
    assert quoted(" ") == "“␣”"


def test_a_swap_of_another_number_of_tokens_aligns_the_ends(tiny_model: HookedModel) -> None:
    run = question_run(tiny_model, settings("say ab to ef or"))
    others = [clean_run(tiny_model, unrelated_tokens(tiny_model, number, 12)) for number in range(3)]
    swap = swap_routes(run, 2, "wxyz", [8], others, 3)[0]
    assert (swap.aligned, swap.prompt, len(swap.null)) == (True, "say wxyz to ef or", 3)


# The same with plain transformers


def plain(name: str) -> tuple[Any, HookedModel]:
    """Return a tiny model of transformers, and one with hook points and the same weights."""
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    more = {"num_key_value_heads": 2, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0, "head_dim": 8}
    caps = {"attn_logit_softcapping": 5.0, "sliding_window": 4, "query_pre_attn_scalar": 8}
    kind, option = ("Gemma2", caps) if name == "gemma-2" else ("Llama", {})
    config = getattr(transformers, f"{kind}Config")(**sizes, **more, **option, attn_implementation="eager")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = getattr(transformers, f"{kind}ForCausalLM")(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(0.25 * torch.randn(parameter.shape))
    return model, wrap_in_memory(deepcopy(model))


@pytest.mark.parametrize(("name", "source", "dest", "layers"),
                         [("llama", 3, 8, (0, 2)), ("llama", 6, 9, (1, 1)), ("gemma-2", 5, 7, (0, 2))])  # fmt: skip
def test_plain_transformers_cuts_alike(name: str, source: int, dest: int, layers: tuple[int, int]) -> None:
    theirs, ours = plain(name)
    run = run_of(ours, 10)
    effect = cut_effects(run, [Cut((run.positions(source, dest),), *layers)])[0].effect

    def mask(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        kwargs["attention_mask"] = kwargs["attention_mask"].clone()
        kwargs["attention_mask"][..., dest, source] = torch.finfo(torch.float32).min
        return args, kwargs

    clean = theirs(run.tokens).logits[0, -1].log_softmax(-1)[run.answer]
    for layer in range(layers[0], layers[1] + 1):
        theirs.model.layers[layer].self_attn.register_forward_pre_hook(mask, with_kwargs=True)
    cut = theirs(run.tokens).logits[0, -1].log_softmax(-1)[run.answer]
    assert abs(effect) > 1e-3
    assert effect == pytest.approx(float(clean - cut), abs=1e-4)


def test_plain_transformers_swaps_alike(monkeypatch) -> None:
    from transformers.models.llama import modeling_llama

    theirs, ours = plain("llama")
    run, source, dest = run_of(ours, 10), 4, 9
    tokens = run.tokens.clone()
    tokens[0, source] = 7
    other, eager, seen = clean_run(ours, tokens, joined=False), modeling_llama.eager_attention_forward, list[Tensor]()

    def keep(module: Any, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **more: Any) -> Any:
        seen.append(v)
        return eager(module, q, k, v, *rest, **more)

    def swap(module: Any, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **more: Any) -> Any:
        out, weights = eager(module, q, k, v, *rest, **more)
        added = (seen[module.layer_idx] - v)[0, :, source].repeat_interleave(2, 0)
        out = out.clone()
        out[0, dest] += weights[0, :, dest, source, None] * added
        return out, weights

    def last(tokens: Tensor, attention: Callable[..., Any]) -> Tensor:
        monkeypatch.setattr(modeling_llama, "eager_attention_forward", attention)
        return theirs(tokens).logits[0, -1].log_softmax(-1)

    last(tokens, keep)
    changed = swapped(run, [SwapRow(source, (dest,), values_of(other, run.words[source]))])[0]
    assert (changed - run.log_probs).abs().max() > 1e-3
    torch.testing.assert_close(changed, last(run.tokens, swap), atol=1e-4, rtol=0)


# Bad input


@pytest.mark.parametrize(
    ("text", "message"), [("  ", "empty"), ("word", "at least two words"), ("a " * 51, "102 words")]
)
def test_a_prompt_without_routes_is_refused(tiny_model: HookedModel, text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        question_run(tiny_model, settings(text))


def test_swaps_that_cannot_be_are_refused(tiny_model: HookedModel) -> None:
    run = question_run(tiny_model, settings("the cat sat on"))
    with pytest.raises(UnknownNameError, match="'cat'"):
        swap_pairs(run, ["cats=dog"])
    with pytest.raises(PromptError, match="WORD=OTHER"):
        swap_pairs(run, ["cat"])
    with pytest.raises(PromptError, match="'on' is the last word"):
        swap_routes(run, len(run.words) - 1, "in", [], [], 1)
    with pytest.raises(PromptError, match="choose a word that changes it"):
        swap_routes(run, 2, "cat", [4], [], 1)
    with pytest.raises(PromptError, match="token numbers"):
        question_run(load_model("planted:induction"), settings("the cat"))


def test_a_model_whose_pattern_cannot_be_edited_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "vocab_size": 50}
    config = OPTConfig(**sizes, word_embed_proj_dim=32, max_position_embeddings=32, attn_implementation="eager")
    OPTForCausalLM(config).save_pretrained(tmp_path / "small-opt")
    with pytest.raises(ConfigError, match=r"small-opt shows no attention pattern that can be edited"):
        run_of(load_model(str(tmp_path / "small-opt")))


def test_what_was_measured_before_a_stop_is_there() -> None:
    model, so_far, left = load_model("planted:induction"), list[Routes](), [3]

    def stop(tokens: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    asked = settings(INDUCTION)
    with pytest.raises(KeyboardInterrupt):
        so_far.extend(find_routes(question_run(model, asked), LostWords.of(model, None), asked, stop))
    assert len(so_far[-1].words) == 10
    assert so_far[-1].enough is None


# The packaged model


@pytest.fixture(scope="module")
def lens() -> JacobianLens:
    return Workspace(DATA).open(JacobianLens, "smollm2-135m")


@pytest.mark.real
def test_a_name_that_was_said_twice_is_found_twice(smollm2: HookedModel) -> None:
    run = question_run(smollm2, settings("My name is Alice. I am Alice. Call me"))
    cuts = edge_cuts(run, [0.0] * len(run.words))
    effects = cut_effects(run, cuts.cuts)
    end = len(run.words) - 1
    rows = zip(cuts.edges, cuts.also, effects, strict=True)
    alice = {also: changed.effect for edge, also, changed in rows if edge == (7, end)}
    assert run.texts[7] == "Alice"
    assert set(alice) == {(), (3,)}
    assert alice[3,] > 2 * max(alice[()], 0.5)


@pytest.mark.real
def test_france_tells_is_and_italy_flips_the_answer(smollm2: HookedModel, lens: JacobianLens) -> None:
    found = routes_of(smollm2, "The capital of France is", lens, swap=("France=Italy",))
    route = next(route for route in found.drawn if (route.source, route.destination) == (3, 4))
    assert route.effect > 2
    assert route.layers
    assert route.carried
    assert 16 <= route.layers.first <= route.layers.last <= 26
    assert "Paris" in route.carried.words
    swap = found.swaps[0]
    assert (swap.counterpart.strip(), swap.flips, swap.others) == ("Rome", True, None)
    assert swap.after.counterpart > 0.3 > 0.05 > swap.before.counterpart
    assert swap.after.moved > max(swap.null)
    assert len(found.headline().split(": ", 1)[1].split()) <= 25
