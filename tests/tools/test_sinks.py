"""The measurement of attention sinks: which attention is hidden, and what is counted where nothing was learned."""

import torch

from interp.models.loading import load_model
from tools.sinks import losses, muted, shares, starts, texts, without_first, without_other

PATTERN = torch.tensor([[[[1.0, 0, 0], [0.75, 0.25, 0], [0.5, 0.1, 0.4]]]])


def test_hidden_keys_get_nothing_and_the_others_their_share_of_the_rest():
    torch.testing.assert_close(
        without_first(PATTERN, 1)[0, 0], torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0.2, 0.8]]), msg="the first position"
    )
    torch.testing.assert_close(
        without_other(PATTERN, 1)[0, 0],
        torch.tensor([[1.0, 0, 0], [1, 0, 0], [5 / 6, 1 / 6, 0]]),
        msg="the strongest other",
    )
    torch.testing.assert_close(muted(PATTERN, 1)[0, 0].sum(-1), torch.tensor([1, 0.25, 0.5]))
    assert torch.equal(without_first(PATTERN, 2)[0, 0, 1], PATTERN[0, 0, 1]), "earlier queries still see it"


def test_only_what_stands_first_differs_and_an_untrained_model_has_no_sink():
    model = load_model("small:mlp-2l")
    text = texts(model, 2, 20, 0)
    conditions = starts(model, text, 0)
    assert {at for name, (_, at) in conditions.items() if name != "BOS in the middle"} == {0}
    for name in ("random token", "line break", "BOS"):
        tokens, _ = conditions[name]
        assert torch.equal(tokens[:, 1:], text[:, :-1])
        assert not torch.equal(tokens[:, 0], text[:, 0])
    moved, at = conditions["BOS in the middle"]
    assert (moved[:, at] == 256).all()
    assert torch.equal(moved[:, :at], text[:, :at])
    uniform = (1 / torch.arange(9.0, 21.0)).mean()
    assert (shares(model, text, 0).mean() - uniform).abs() < 0.05
    assert losses(model, text).shape == (2,)
    assert not torch.allclose(losses(model, text, without_first), losses(model, text))
