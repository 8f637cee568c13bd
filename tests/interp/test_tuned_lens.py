"""The tuned lens: starts as the logit lens, ends closer to the model, resumes exactly, and knows its model."""

import numpy as np
import pytest
import torch
from make_lens import identity_lens
from torch.nn.functional import kl_div

from interp.artifacts import ARRAYS, Draft, open_artefact, save_artefact, verify
from interp.artifacts.artefact import settings_json
from interp.errors import ConfigError, CorruptError, MismatchError
from interp.lenses.lens_training import kl_divergence, train_tuned_lens
from interp.lenses.logit_lens import logit_lens
from interp.lenses.tuned_lens import TunedLens, TunedLensConfig
from interp.models.adapter import run_with_cache, weight_hash
from interp.models.loading import load_model
from interp.names import lens_hook_points

CONFIG = TunedLensConfig(steps=60, positions=64, lr=3e-3, heldout_positions=200, checkpoint_every=7)


@pytest.fixture(scope="module")
def model():
    """Large random MLPs, so that early layers say something else than the last."""
    model = load_model("small:mlp-2l", seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "mlp" in name:
                parameter.mul_(8)
    return model


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(97, 123, (40, 16), generator=generator), torch.randint(97, 123, (8, 16), generator=generator)


def trained(model, texts, folder, config=CONFIG, *, stop_after=0):
    """Train into a folder and return the steps that were taken; `stop_after` one of them, as Ctrl-C does."""
    steps, drafts = [], []

    def draft(settings):
        drafts.append(Draft.open(folder, kind="lens", config=settings_json(settings), seed=config.seed))
        return drafts[0]

    def progress(done, total, facts):
        steps.append(done)
        if done == stop_after:
            raise KeyboardInterrupt

    lens = train_tuned_lens(model, *texts, config, source="random", draft=draft, progress=progress)
    save_artefact(lens, folder, seed=config.seed, draft=drafts[0])
    return steps


@pytest.fixture(scope="module")
def folder(model, texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lenses") / "small"
    trained(model, texts, folder)
    return folder


def test_zero_translators_are_the_logit_lens(model):
    lens = identity_lens(list(lens_hook_points(2)), 64, weight_hash(model))
    tokens = torch.arange(97, 105)[None]
    plain, same = logit_lens(model, tokens), logit_lens(model, tokens, lens=lens)
    assert torch.equal(plain.probabilities, same.probabilities)
    assert (plain.lens, same.lens) == ("logit", "tuned")


def test_every_layer_comes_closer_to_the_model_on_held_out_tokens(folder):
    assert verify(folder) == []
    layers = open_artefact(TunedLens, folder).layers
    assert [layer.hook_point for layer in layers] == ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"]
    for layer in layers:
        assert layer.kept
        assert layer.kl_tuned < 0.7 * layer.kl_logit


def test_the_measured_kl_is_that_of_the_saved_lens(model, texts, folder):
    """The manifest's numbers, again, by torch's own divergence over all held-out positions."""
    lens = open_artefact(TunedLens, folder)
    names = [*(layer.hook_point for layer in lens.layers), "blocks.1.hook_resid_post"]
    _, cache = run_with_cache(model, texts[1], names)
    with torch.no_grad():
        target = model(texts[1])[:, 1:].log_softmax(-1)
        for layer in lens.layers:
            plain = cache[layer.hook_point]
            for measured, resid in ((layer.kl_logit, plain), (layer.kl_tuned, lens.translate(layer.hook_point, plain))):
                reading = model.unembed(model.ln_final(resid))[:, 1:].log_softmax(-1)
                expected = float(kl_div(reading, target, log_target=True, reduction="none").sum(-1).mean())
                assert measured == pytest.approx(expected, rel=0.15)  # 200 tokens against all 120 of them


def test_a_stopped_run_resumes_to_the_same_lens(model, texts, folder, tmp_path):
    again = tmp_path / "small"
    with pytest.raises(KeyboardInterrupt):
        trained(model, texts, again, stop_after=10)
    with pytest.raises(MismatchError, match="other settings"):
        trained(model, texts, again, TunedLensConfig(steps=5))
    assert trained(model, texts, again)[0] == 11
    one, two = open_artefact(TunedLens, folder), open_artefact(TunedLens, again)
    assert one.layers == two.layers
    np.testing.assert_array_equal(one.weights, two.weights)
    np.testing.assert_array_equal(one.biases, two.biases)
    assert sorted(path.name for path in again.iterdir()) == sorted(path.name for path in folder.iterdir())


def test_half_a_step_is_not_kept(model, texts, folder, tmp_path, monkeypatch):
    """Interrupted while weights change, a run goes on from its last checkpoint, and ends in the same numbers."""
    again, whole, taken = tmp_path / "small", torch.optim.Adam.step, []

    def interrupted(optimizer, *args):
        whole(optimizer, *args)
        taken.append(1)
        if len(taken) == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.Adam, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(model, texts, again)
    monkeypatch.undo()
    assert trained(model, texts, again)[0] == 8
    assert np.array_equal(open_artefact(TunedLens, folder).weights, open_artefact(TunedLens, again).weights)


def test_a_translator_that_is_no_better_is_not_kept(texts, tmp_path):
    """Blocks that write nothing: the plain lens is exact, and no training may make it worse."""
    silent = load_model("small:mlp-2l", seed=1)
    with torch.no_grad():
        for block in silent.blocks:
            for linear in (block.attn.o, block.mlp.out):
                linear.original_component.weight.zero_()
                linear.original_component.bias.zero_()
    trained(silent, texts, tmp_path / "silent", TunedLensConfig(steps=3, positions=32, lr=3.0))
    lens = open_artefact(TunedLens, tmp_path / "silent")
    for layer in lens.layers:
        assert not layer.kept
        assert layer.kl_tuned == layer.kl_logit == pytest.approx(0, abs=1e-5)
    assert not lens.weights.any()


def test_a_lens_is_refused_by_other_weights(model, folder):
    other = load_model("small:mlp-2l", seed=2)
    with pytest.raises(MismatchError, match="fitted on weights"):
        open_artefact(TunedLens, folder).check_model(other)
    with pytest.raises(MismatchError, match="workbench lens"):
        logit_lens(other, torch.arange(97, 100)[None], lens=open_artefact(TunedLens, folder))


def test_damaged_lenses_and_bad_settings_are_refused(model, texts, folder, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / ARRAYS).write_bytes(b"nothing")
    with pytest.raises(CorruptError, match=ARRAYS):
        _ = open_artefact(TunedLens, copy).weights
    with pytest.raises(ConfigError, match="above 0"):
        TunedLensConfig(steps=0)
    with pytest.raises(ConfigError, match="read as it is"):
        trained(model, texts, tmp_path / "x", TunedLensConfig(layers=(2,)))
    with pytest.raises(ConfigError, match="at least 10 contexts"):
        trained(model, (texts[0][:3], texts[1]), tmp_path / "y")


def test_the_divergence_is_torchs_and_zero_of_itself():
    logits = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(0))
    p, q = logits[0].log_softmax(-1), logits[1]
    expected = kl_div(q.log_softmax(-1), p, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(kl_divergence(p, q), expected)
    assert float(kl_divergence(p, logits[0]).abs().max()) < 1e-6


def test_the_verb_trains_from_text_and_says_what_it_gained(tmp_path, capsys):
    from workbench.__main__ import main

    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"{n}: the quick brown fox jumps over the lazy dog number {n * n}." for n in range(99)))
    options = ["--corpus", str(text), "--context-length", "24", "--n-contexts", "60", "--steps", "5", "--threads", "1"]
    small = ["--positions", "16", "--heldout-positions", "32", "--workspace", str(tmp_path / "workspace")]
    assert main(["lens", "small:mlp-1l", *options, *small]) == 0
    assert "blocks.0.hook_resid_pre: logit lens" in capsys.readouterr().out
    open_artefact(TunedLens, tmp_path / "workspace" / "lenses" / "small-mlp-1l").check_model(load_model("small:mlp-1l"))
    assert main(["lens", "small:mlp-1l", *options, *small]) == 2  # it is already there
