"""Path patching against the published algorithm, done slowly with whole passes and everything else frozen."""

import numpy as np
import pytest
import torch

from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.models.adapter import available_hook_points, run_with_cache, run_with_hooks
from interp.models.toys import planted_induction
from interp.patching.paths import path_patch
from tests.interp.architectures import ALL_NAMES, hold_post_norm, tiny


def rows(seed: int, n: int = 3, length: int = 9) -> torch.Tensor:
    return torch.randint(1, 50, (n, length), generator=torch.Generator().manual_seed(seed))


CLEAN, CORRUPT = rows(0), rows(1)


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1, 7] - logits[:, -1, 11]


def writes(model) -> list[str]:
    """The hook points of everything that adds to the stream."""
    per_layer = ["attn.hook_z", *(["hook_mlp_out"] if "blocks.0.hook_mlp_out" in available_hook_points(model) else [])]
    return [f"blocks.{layer}.{name}" for layer in range(model.cfg.n_layers) for name in per_layer]


def set_to(value, head=None):
    def hook(now, hook):
        if head is None:
            return value
        now = now.clone()
        now[:, :, head] = value[:, :, head]
        return now

    return hook


def corrupted(model, sender):
    """A hook that gives the sender its value on the corrupt prompts."""
    if sender == "embed":
        name, head = "blocks.0.hook_resid_pre", None
    elif sender.endswith("MLP"):
        name, head = f"blocks.{sender[1:-3]}.hook_mlp_out", None
    else:
        layer, head = sender[1:].split("H")
        name, head = f"blocks.{layer}.attn.hook_z", int(head)
    return name, set_to(run_with_cache(model, CORRUPT, [name])[1][name], head)


def slow(model, sender, points, between):
    """`points`: (hook point, heads or None) of the receivers, in the model's order."""
    patches = []
    for point, heads in points:
        frozen = []
        # the values at which all others stand: the clean run's, or those of the run as patched so far
        if between != "recomputed":
            cache = values(model, patches if between == "receivers" else [], writes(model))
            frozen = [(name, set_to(cache[name])) for name in writes(model) if name != point]
        seen = {}
        name, hook = corrupted(model, sender)
        if between != "recomputed" and "H" in sender and hasattr(model.blocks[0], "ln1_post"):
            frozen += hold_post_norm(model, CLEAN, int(sender[1:].split("H")[0]))
        # the sender goes last, so that it alone is not frozen
        run_with_hooks(model, CLEAN, [*frozen, (name, hook), (point, keep(seen, point))])
        patches += [(point, set_to(seen[point], head)) for head in (heads if heads is not None else [None])]
    return metric(run_with_hooks(model, CLEAN, patches)) - metric(model(CLEAN))


def keep(seen, point):
    def hook(value, hook):
        seen[point] = value.detach().clone()

    return hook


def values(model, hooks, names):
    seen = {}
    run_with_hooks(model, CLEAN, [*hooks, *((name, keep(seen, name)) for name in names)])
    return seen


SMALL = [
    ("L0H1", [("L1H2", "k")], [("blocks.1.attn.hook_k", "kv2")]),
    ("L0H1", [("L1H2", "q"), ("L1H2", "v")], [("blocks.1.attn.hook_q", [2]), ("blocks.1.attn.hook_v", "kv2")]),
    ("embed", [(0, None, "k"), (1, 0, "q")], [("blocks.0.attn.hook_k", "all"), ("blocks.1.attn.hook_q", [0])]),
    ("L0H3", ["logits"], [("blocks.1.hook_resid_post", None)]),
]
WITH_MLP = [
    ("L0MLP", [(1, None, "v")], [("blocks.1.attn.hook_v", "all")]),
    ("L0H1", ["L1MLP"], [("blocks.1.hook_mlp_out", None)]),
]


@pytest.mark.parametrize("between", ["frozen", "receivers", "recomputed"])
@pytest.mark.parametrize("name", ALL_NAMES)
@torch.no_grad()
def test_every_path_is_what_the_published_algorithm_gives(name, between):
    model = tiny(name)
    groups = model.cfg.n_heads // (model.cfg.n_key_value_heads or model.cfg.n_heads)
    n_kv = model.cfg.n_heads // groups
    for sender, receivers, points in SMALL + WITH_MLP:
        points = [(p, {"kv2": [2 // groups], "all": list(range(n_kv))}.get(h) if isinstance(h, str) else h)
                  for p, h in points]  # fmt: skip
        found = path_patch(
            model, CLEAN, CORRUPT, metric, sender=sender, receivers=receivers, between=between, batch_size=2
        )
        expected = slow(model, sender, points, between).double().numpy()
        assert np.abs(expected).max() > 1e-3, "the oracle must show an effect"
        np.testing.assert_allclose(found.effect, expected, atol=2e-4, rtol=2e-3, err_msg=f"{sender} -> {receivers}")


def test_planted_previous_token_head_reaches_the_induction_head_by_its_keys_alone():
    model = planted_induction()
    block = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    clean, corrupt = block.repeat(1, 2), block.roll(1, 0).repeat(1, 2)

    def right(logits):
        return logits[:, 16:-1].log_softmax(-1).gather(-1, clean[:, 17:, None])[..., 0].mean(1)

    by_side = {
        side: path_patch(model, clean, corrupt, right, sender="L0H0", receivers=[("L1H0", side)]).effect
        for side in ("q", "k", "v")
    }
    assert (by_side["k"] < -20).all()
    assert max(np.abs(by_side["q"]).max(), np.abs(by_side["v"]).max()) < 1e-3


def test_embed_into_everything_with_readers_recomputed_is_the_corrupt_run():
    model = tiny("llama-gqa")
    everyone = [(layer, None, side) for layer in range(model.cfg.n_layers) for side in ("q", "k", "v")]
    everyone += ["L0MLP", "L1MLP", "logits"]
    found = path_patch(
        model, CLEAN, CORRUPT, metric, sender="embed", receivers=everyone, between="receivers", normalise=True
    )
    assert found.other is not None
    np.testing.assert_allclose(found.base + found.effect, found.other, atol=1e-4)
    assert found.share == pytest.approx(1, abs=1e-4)


def test_patching_a_prompt_with_itself_changes_nothing_and_several_senders_add_up_in_a_linear_reader():
    model = tiny("native-raw")
    same = path_patch(model, CLEAN, CLEAN, metric, sender="L0H1", receivers=[("L1H2", "k")])
    assert np.abs(same.effect).max() < 1e-5
    each = [path_patch(model, CLEAN, CORRUPT, metric, sender=s, receivers=["logits"]).effect for s in ("L0H1", "L0MLP")]
    both = path_patch(model, CLEAN, CORRUPT, metric, sender=["L0H1", "L0MLP"], receivers=["logits"]).effect
    np.testing.assert_allclose(both, each[0] + each[1], atol=1e-4)


def test_result_does_not_depend_on_the_batches_and_names_what_was_done():
    model = tiny("llama-gqa")
    runs = [
        path_patch(model, CLEAN, CORRUPT, metric, sender="L0H1", receivers=[("L1H3", "k")], batch_size=size)
        for size in (1, 3)
    ]
    np.testing.assert_allclose(runs[0].effect, runs[1].effect, atol=1e-5)
    assert runs[0].settings["receivers"] == ["L1H2.k", "L1H3.k"]  # the group shares its keys
    assert (runs[0].settings["between"], runs[0].settings["direction"]) == ("frozen", "noise")


def test_denoising_swaps_the_runs():
    model = tiny("native-ln")
    a = path_patch(model, CLEAN, CORRUPT, metric, sender="L0H1", receivers=[("L1H2", "k")], direction="denoise")
    b = path_patch(model, CORRUPT, CLEAN, metric, sender="L0H1", receivers=[("L1H2", "k")])
    np.testing.assert_array_equal(a.effect, b.effect)


@pytest.mark.parametrize(
    ("sender", "receivers", "error"),
    [
        ("L1H0", [("L1H2", "k")], ConfigError),  # a head does not read its own layer
        ("L1H0", [("L0H2", "k")], ConfigError),
        ("L0H9", [("L1H2", "k")], UnknownNameError),
        ("L0H0", [("L1H9", "k")], UnknownNameError),
        ("L0H0", [("L1H2", "z")], UnknownNameError),
        ("L0H0", ["L1H2"], UnknownNameError),
        ("L0H0", [], ConfigError),
    ],
)
def test_paths_that_do_not_exist_are_refused(sender, receivers, error):
    with pytest.raises(error):
        path_patch(tiny("native-ln"), CLEAN, CORRUPT, metric, sender=sender, receivers=receivers)


def test_prompts_of_different_length_are_refused():
    with pytest.raises(PromptError, match="same number of tokens, got"):
        path_patch(tiny("native-ln"), CLEAN, CORRUPT[:, :-1], metric, sender="L0H0", receivers=["logits"])
