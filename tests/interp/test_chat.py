"""Chats side by side: the shift of every token is that of plain hooks; wrappers that nobody uses change nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from architectures import ALL_NAMES, tiny

from interp.errors import ConfigError, MismatchError, PromptError
from interp.interventions.apply import hooks_of
from interp.interventions.chat import Chats, ChatToken, reply_to
from interp.interventions.conversation import (
    RANDOM,
    STEERED,
    UNSTEERED,
    ChatTurn,
    Conversation,
    random_vector,
)
from interp.interventions.intervention import Direction, Intervention, everywhere
from interp.interventions.recipe import Recipe
from interp.models.adapter import run_with_hooks
from interp.models.generation import NextToken, Offset, chat_tokens
from interp.models.identity import weight_hash

POINT = "blocks.0.hook_resid_post"


def along(d: int, amount: float, point: str = POINT, action: str = "add") -> Intervention:
    target = Direction(hook_point=point, vector=random_vector(d, 1.0, [7]), origin="drawn")
    return Intervention(target=target, action=action, amount=amount)


@pytest.mark.parametrize("name", ALL_NAMES)
@pytest.mark.parametrize("point", [POINT, "blocks.1.attn.hook_pattern"])
def test_text_is_the_same_without_idle_wrappers(name, point):
    """The loop, which leaves wrappers out, against whole passes with all of them."""
    model, seen = tiny(name), []
    tokens = torch.randint(1, 50, (2, 5), generator=torch.Generator().manual_seed(1))
    hooks = [(point, lambda value, hook: seen.append(value.shape))]
    step = NextToken(model, [*hooks_of(model, [along(32, 3.0)]), *hooks], offset=Offset())
    for _ in range(3):
        found = step(tokens)
        whole = run_with_hooks(model, tokens, hooks_of(model, [along(32, 3.0)]))[:, -1]
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)
        tokens = torch.cat([tokens, found.argmax(-1)[:, None]], 1)
    assert len(seen) == 3
    with model.hooks(fwd_hooks=hooks_of(model, [along(32, 3.0)])):  # hooks of somebody around the loop
        torch.testing.assert_close(
            NextToken(model)(tokens[:, :5]), NextToken(model, hooks_of(model, []))(tokens[:, :5])
        )
        steered = NextToken(model)(tokens[:, :5])
    assert not torch.allclose(steered, NextToken(model)(tokens[:, :5]), atol=1e-2)


@pytest.mark.parametrize("name", ["gpt2", "llama-gqa", "neox"])
@pytest.mark.parametrize("action", ["add", "ablate"])
def test_every_shift_is_recomputed_from_whole_passes_where_texts_have_different_lengths(name, action):
    model = tiny(name)
    drawn = torch.Generator().manual_seed(2)
    texts = [torch.randint(1, 50, (1, n), generator=drawn) for n in (3, 2, 4)]
    steps = everywhere(along(32, 20.0, action=action), 2)
    steps = [(), steps, [along(32, -2.0)]]
    chats, read = Chats(model, steps, (POINT, lambda x: x[:, 0])), list[int]()
    for turn in range(2):  # the second message goes on with what the first one read
        read.clear()
        with model.hooks(fwd_hooks=[(POINT, lambda value, hook: read.append(value.shape[1]))]):
            said = list(chats.write(texts, 3))
        longest = max(tokens.shape[1] for tokens in texts)
        for at, tokens in enumerate(texts):
            for number, each in enumerate(step[at] for step in said):
                with_it, without = (
                    run_with_hooks(model, tokens, hooks_of(model, mine))[0, -1].log_softmax(-1)
                    for mine in (steps[at], [])
                )
                seen: list[float] = []
                look = (POINT, lambda value, hook, seen=seen: seen.append(value[0, -1, 0].item()))
                run_with_hooks(model, tokens, [*hooks_of(model, steps[at]), look])
                assert each.score_before == pytest.approx(seen[0], abs=1e-4), "a monitor reads the steered model"
                assert each.token == int(with_it.argmax())
                assert each.shift == pytest.approx((with_it - without)[each.token].item(), abs=1e-4)
                if number < 2 - at:  # the replies are cut at different lengths
                    texts[at] = torch.cat([texts[at], torch.tensor([[each.token]])], 1)
                tokens = torch.cat([tokens, torch.tensor([[each.token]])], 1)
            texts[at] = torch.cat([texts[at], torch.tensor([[7, 8]])], 1)
        assert max(abs(step[1].shift) for step in said) > 0.02
        assert (read[0] == longest) if turn == 0 else (read[0] < longest / 2), "what was read is not read again"


def test_texts_of_one_length_are_enough_for_a_model_without_a_cache(tiny_model):
    tokens = torch.tensor([[104, 105, 32]])
    chats = Chats(tiny_model, [(), [along(64, 0.0)]])
    said = list(chats.write([tokens, tokens], 3))
    assert all(one.token == other.token and abs(other.shift) < 1e-5 for one, other in said)
    with pytest.raises(ConfigError, match="texts of one length"):
        next(chats.write([tokens, tokens[:, 1:]], 3))


def talk(model, strength: float = 1.0, amount: float = 60.0, **more) -> Conversation:
    step = along(576, amount, "blocks.14.hook_resid_post")
    recipe = Recipe(name="drawn", steps=(step,), model="smollm2-135m", weight_hash=weight_hash(model))
    return Conversation(recipe=recipe, names=("drawn",), strengths=(strength,), **{"n_new": 3, **more})


@pytest.mark.real
def test_with_an_amount_of_zero_all_chats_are_equal_also_when_drawn(smollm2):
    for given in (talk(smollm2, 0.0), talk(smollm2, 1.0, 1e-9), talk(smollm2, 0.0, temperature=1.0)):
        replies = reply_to(smollm2, given, "Name a fruit.")
        list(replies)
        one, *others = replies.finished().values()
        assert [each.text for each in others] == [one.text, one.text]
        assert max(abs(each.shift) for other in others for each in other.tokens) < 1e-4


@pytest.mark.real
def test_the_second_reply_is_what_plain_hooks_of_transformers_write(smollm2):
    """Two turns of two lengths; the known answer is a hook on the block, a pass for every token."""
    from transformers import AutoModelForCausalLM

    given = talk(smollm2, system="Answer briefly.", random=False)
    first = reply_to(smollm2, given, "Name a fruit.")
    list(first)
    turn = ChatTurn(message="Name a fruit.", strengths={"drawn": 1.0}, replies=first.finished())
    given = replace(given, turns=(turn,))
    replies = reply_to(smollm2, given, "And another?", first.chats)
    list(replies)
    found = replies.finished()
    assert found[STEERED].text != found[UNSTEERED].text
    plain = AutoModelForCausalLM.from_pretrained(smollm2.cfg.model_name).eval()
    [step] = given.steps(STEERED, 30)
    added, on = torch.from_numpy(step.target.vector).float() * step.amount, [True]

    def steer(block, inputs, output):
        if on[0]:
            output[:, 1:] += added

    plain.model.layers[14].register_forward_hook(steer)
    tokens = chat_tokens(smollm2, given.messages(STEERED, "And another?"))
    for each in found[STEERED].tokens:
        log_p = []
        for on[0] in (True, False):
            with torch.no_grad():
                log_p.append(plain(tokens).logits[0, -1].log_softmax(-1))
        best = int(log_p[0].argmax())
        assert smollm2.tokenizer.decode([best]) == each.text
        assert each.shift == pytest.approx((log_p[0] - log_p[1])[best].item(), abs=1e-4)
        tokens = torch.cat([tokens, torch.tensor([[best]])], 1)


@pytest.mark.real
def test_bad_input_is_one_sentence(smollm2, tiny_model):
    given = talk(smollm2)
    with pytest.raises(PromptError, match="message is empty"):
        reply_to(smollm2, given, " \n")
    with pytest.raises(PromptError, match=r"exceed the context of 8192 tokens.*begin a new conversation"):
        reply_to(smollm2, given, "word " * 8200)
    with pytest.raises(MismatchError, match="this model has"):
        reply_to(smollm2, replace(given, recipe=replace(given.recipe, weight_hash="0" * 64)), "Hello")
    with pytest.raises(ConfigError, match="n_new should be 1 to 512"):
        talk(smollm2, n_new=0)
    other = replace(given.recipe, weight_hash=weight_hash(tiny_model))
    with pytest.raises(ConfigError, match="cannot hold a chat"):
        reply_to(tiny_model, replace(given, recipe=other), "Hello")


@pytest.mark.real
def test_without_a_template_lines_say_who_speaks_and_the_reply_ends_there(smollm2, monkeypatch):
    monkeypatch.setattr(smollm2.tokenizer, "chat_template", None)
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    text = smollm2.tokenizer.decode(chat_tokens(smollm2, messages)[0], skip_special_tokens=True)
    assert text == "Be kind.\nUser: Hi\nAssistant:"
    written = smollm2.tokenizer(" Hello.\nUser: more", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(Chats, "write", lambda *_: iter([[ChatToken(each, 0.5)] * 2 for each in written]))
    replies = reply_to(smollm2, talk(smollm2, random=False), "Hi")
    list(replies)
    assert not replies.template
    for each in replies.finished().values():
        assert (each.text, each.cut) == (" Hello.", False)
        assert "".join(token.text for token in each.tokens) == " Hello."


def test_the_null_has_the_same_length_and_another_direction():
    step = along(16, 3.0)
    recipe = Recipe(name="r", steps=(step,), model="m", weight_hash="")
    given = Conversation(recipe=recipe, names=("r",), strengths=(2.0,))
    [own], [null] = given.steps(STEERED, 2), given.steps(RANDOM, 2)
    assert null.amount == own.amount == 6.0
    assert np.linalg.norm(null.target.vector) == pytest.approx(np.linalg.norm(own.target.vector))
    assert abs(null.target.vector @ own.target.vector) < 0.9
    assert given.steps(UNSTEERED, 2) == ()
