"""Chats side by side: the shift of every token is that of plain hooks; wrappers that nobody uses change nothing."""

import numpy as np
import pytest
import torch
from architectures import ALL_NAMES, tiny

from interp.errors import ConfigError, PromptError
from interp.interventions.apply import hooks_of
from interp.interventions.chat import Reply
from interp.interventions.intervention import Direction, Intervention, at_random, random_vector
from interp.models.adapter import run_with_hooks
from interp.models.generation import NextToken, Offset, chat_tokens, sampled
from interp.seeds import make_generator

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


DRAWN = "blocks.14.hook_resid_post"


def ask(model, message: str, *more: dict[str, str], amount: float = 0.0, n_new: int = 3, choose=None) -> Reply:
    steps = [along(576, amount, DRAWN)] if amount else []
    messages = [*more, {"role": "user", "content": message}]
    return Reply(model, messages, lambda offset: hooks_of(model, steps, offset=offset), n_new, choose)


@pytest.mark.real
def test_a_tiny_amount_changes_nothing_also_when_drawn(smollm2):
    for temperature in (0.0, 1.0):
        replies = [
            ask(smollm2, "Name a fruit.", amount=amount,
                choose=sampled(temperature, make_generator(0, "chat")))
            for amount in (0.0, 1e-9)
        ]  # fmt: skip
        written = [[*reply] for reply in replies]
        assert written[0] == written[1]
        assert max(abs(token.shift) for token in replies[1].finished().tokens) < 1e-4


@pytest.mark.real
def test_the_second_reply_is_what_plain_hooks_of_transformers_write(smollm2):
    """Two turns; the known answer is a hook on the block, a pass for every token. A monitor reads the steered model."""
    from transformers import AutoModelForCausalLM

    history = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Name a fruit."},
        {"role": "assistant", "content": "A plum."},
    ]
    replies = [ask(smollm2, "And another?", *history, amount=amount) for amount in (0.0, 60.0)]
    plain_text, written = ([*reply] for reply in replies)
    assert plain_text != written
    point = "blocks.20.hook_resid_post"
    found = replies[1].finished((point, lambda x: x[:, 0]))
    plain = AutoModelForCausalLM.from_pretrained(smollm2.cfg.model_name).eval()
    added, on, seen = torch.from_numpy(along(576, 60.0).target.vector).float() * 60.0, [True], []

    def steer(block, inputs, output):
        if on[0]:
            output[:, 1:] += added

    plain.model.layers[14].register_forward_hook(steer)
    plain.model.layers[20].register_forward_hook(lambda block, inputs, output: seen.append(output[0, -1, 0].item()))
    tokens = chat_tokens(smollm2, [*history, {"role": "user", "content": "And another?"}])
    for each, text in zip(found.tokens, written, strict=True):
        log_p = []
        for on[0] in (True, False):
            with torch.no_grad():
                log_p.append(plain(tokens).logits[0, -1].log_softmax(-1))
        best = int(log_p[0].argmax())
        assert smollm2.tokenizer.decode([best]) == each.text == text
        assert each.shift == pytest.approx((log_p[0] - log_p[1])[best].item(), abs=1e-4)
        tokens = torch.cat([tokens, torch.tensor([[best]])], 1)
    on[0] = True
    with torch.no_grad():
        plain(tokens)
    assert found.scores[-1] == pytest.approx(seen[-1], abs=1e-3)
    assert found.shift == pytest.approx(np.mean([abs(token.shift) for token in found.tokens]))
    assert found.cut


@pytest.mark.real
def test_bad_input_is_one_sentence(smollm2, tiny_model):
    with pytest.raises(PromptError, match=r"exceed the model's context of 8192"):
        ask(smollm2, "word " * 8200)
    with pytest.raises(ConfigError, match="cannot hold a chat"):
        ask(tiny_model, "Hello")


@pytest.mark.real
def test_without_a_template_lines_say_who_speaks_and_the_reply_ends_there(smollm2, monkeypatch):
    monkeypatch.setattr(smollm2.tokenizer, "chat_template", None)
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    text = smollm2.tokenizer.decode(chat_tokens(smollm2, messages)[0], skip_special_tokens=True)
    assert text == "Be kind.\nUser: Hi\nAssistant:"
    written = smollm2.tokenizer(" Hello.\nUser: more", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr("interp.interventions.chat.generate", lambda *_: iter(torch.tensor(written)[:, None]))
    reply = ask(smollm2, "Hi", n_new=9)
    list(reply)
    found = reply.finished()
    assert (found.text, found.cut) == (" Hello.", False)
    assert "".join(token.text for token in found.tokens) == " Hello."


def test_the_null_has_the_same_length_and_another_direction():
    own = along(16, 3.0)
    null = at_random(own, [0, 0])
    assert null.amount == own.amount
    assert np.linalg.norm(null.target.vector) == pytest.approx(np.linalg.norm(own.target.vector))
    assert abs(null.target.vector @ own.target.vector) < 0.9
