"""The Jacobian lens: TransformerLens' estimator, planted answers, its files, its nulls, and resuming."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.artifacts import Draft, open_artefact, save_artefact
from interp.artifacts.artefact import settings_json
from interp.doctor._lens_checks import FittedLens, on_text
from interp.doctor.examine import set_up
from interp.errors import ConfigError, CorruptError, MismatchError, MissingError
from interp.lenses.jacobian_fit import (
    batches_of,
    fit_gains,
    fit_jacobian_lens,
    import_jacobian_lens,
    mean_residuals,
    read_published,
    run_texts,
    write_published,
)
from interp.lenses.jacobian_lens import JacobianLens, JacobianLensConfig, JacobianSettings
from interp.lenses.lens_training import distances, draw_positions
from interp.lenses.logit_lens import logit_lens
from interp.lenses.vocabulary import open_vocabulary, read_directions, vocabulary_of
from interp.models.adapter import final_norm_and_unembed, run_with_cache, untrained_model
from interp.models.loading import load_model
from interp.models.small import SmallConfig
from interp.names import lens_hook_points

CONFIG = JacobianLensConfig(rounds=4, texts=16, skip=2, heldout_positions=200, products="float32")


def strong_blocks(spec: str, seed: int = 1):
    """Return a small model whose blocks change the residual much, so that Jacobians are not the identity."""
    model = load_model(spec, seed=seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and ("mlp" in name or ".o." in name):
                parameter.mul_(8)
    return model


@pytest.fixture(scope="module")
def model():
    return strong_blocks("small:mlp-2l")


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(97, 123, (90, 12), generator=generator), torch.randint(97, 123, (20, 12), generator=generator)


@pytest.fixture(scope="module")
def lens(model, texts):
    return fit_jacobian_lens(model, *texts, CONFIG, source="random")


@pytest.mark.parametrize("spec", ["small:mlp-2l", "small:attn-only-2l"])
def test_rows_are_those_of_transformer_lens(spec):
    from transformer_lens.tools.analysis.jacobian_lens import _jacobian_for_prompt, _ordinary_vjp

    model, d = strong_blocks(spec), 64
    tokens = torch.randint(97, 123, (1, 12), generator=torch.Generator().manual_seed(3))
    for each in model.parameters():
        each.requires_grad_(False)
    how = {"source_layers": [0], "dim_batch": d, "skip_first_positions": 2, "backward_provider": _ordinary_vjp}
    theirs = _jacobian_for_prompt(model, tokens, **how)[0]
    ours = run_texts(model, tokens.expand(d, -1), [lens_hook_points(2)[1]], 2).rows(torch.arange(d), last=True)[0]
    assert torch.allclose(ours, theirs, atol=1e-5 * float(theirs.abs().max()))


def test_the_mean_is_that_of_all_rows(model, texts):
    """With as many rounds as a round has texts, no more contexts than that, every text gives every row once."""
    few = texts[0][:16]
    fit = fit_jacobian_lens(model, few, texts[1], replace(CONFIG, rounds=4, layers=(1,)))
    names = [lens_hook_points(2)[1]]
    every = torch.zeros(16, 64, 64)
    for dim in range(64):
        rows = run_texts(model, few, names, CONFIG.skip).rows(torch.full((16,), dim), last=True)[0]
        every[:, dim] = rows
    low, high = every.amin(0) - 1e-2, every.amax(0) + 1e-2
    found = torch.from_numpy(fit.jacobians[0]).float()
    assert ((found >= low) & (found <= high)).all()  # each entry is a mean over some of the 16 texts
    assert float(torch.nn.functional.cosine_similarity(found, every.mean(0), dim=1).mean()) > 0.9


def test_without_blocks_that_change_anything_it_is_the_identity(texts):
    model = load_model("small:mlp-2l", seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".o." in name or ".fc_out." in name:
                parameter.zero_()
    found = fit_jacobian_lens(model, *texts, replace(CONFIG, rounds=2))
    assert np.abs(found.jacobians - np.eye(64)).max() < 1e-3
    tokens = torch.arange(97, 105)[None]
    plain, same = logit_lens(model, tokens), logit_lens(model, tokens, lens=found)
    assert torch.allclose(plain.probabilities, same.probabilities, atol=1e-3)
    assert (plain.lens, same.lens) == ("logit", "jacobian")


def affine_model(seed: int = 1):
    """Return a model whose blocks are affine maps of the residual: no norms, no attention, and no neuron below 0."""
    model = load_model(SmallConfig(n_layers=3, d_mlp=32, normalization=None, act_fn="relu"), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    weights = {name.replace("._original_component", ""): value for name, value in model.named_parameters()}
    with torch.no_grad():
        for name, value in weights.items():
            if ".mlp." not in name:
                value.mul_(0 if ".o." in name else 5)
        for layer in range(3):
            into, out = (f"layers.{layer}.mlp.fc_{way}" for way in ("in", "out"))
            weights[f"{into}.bias"].fill_(100)
            weights[f"{out}.weight"].mul_(2)
            weights[f"{out}.bias"].normal_(generator=generator).sub_(100 * weights[f"{out}.weight"].sum(1))
    return model


def test_blocks_that_are_affine_are_read_exactly_at_gain_one(texts):
    fit = fit_jacobian_lens(affine_model(), *texts, CONFIG)
    for layer in fit.layers:
        assert layer.gain == pytest.approx(1, abs=0.02)
        assert layer.kl_jacobian.estimate < 0.01
        assert min(layer.kl_uncentred.low, layer.kl_logit.low, layer.kl_mean.low) > 0.1
        assert min(layer.below_logit.low, layer.below_mean.low) > 0.1


def test_a_jacobian_that_is_too_small_or_too_large_gets_the_gain_that_mends_it(texts):
    model = affine_model()
    fit = fit_jacobian_lens(model, *texts, CONFIG)
    means = mean_residuals(model, [layer.hook_point for layer in fit.layers], texts[0], fit.settings)
    for factor in (0.4, 1.5, 2.5):
        jacobians = {layer.hook_point: fit.jacobian(layer.hook_point) / factor for layer in fit.layers}
        for gain in fit_gains(model, jacobians, means, texts[0], fit.settings).gains.values():
            assert gain == pytest.approx(factor, rel=0.05)


def test_directions_are_carried_without_the_means(lens):
    point = lens.layers[1].hook_point
    first, second = torch.randn(2, 64, generator=torch.Generator().manual_seed(4))
    moved = lens.translate(point, first + second) - lens.translate(point, first)
    assert torch.allclose(moved, lens.layers[1].gain * lens.carry(point, second), atol=1e-4)
    assert torch.allclose(lens.translate(point, torch.from_numpy(lens.means[1])), torch.from_numpy(lens.end))


def test_means_are_those_of_the_residuals_without_the_first_positions(model, texts, lens):
    names = [*(layer.hook_point for layer in lens.layers), lens_hook_points(2)[-1]]
    _, values = run_with_cache(model, texts[0], names)
    for name, mean in zip(names, [*lens.means, lens.end], strict=True):
        assert np.allclose(values[name][:, CONFIG.skip :].mean((0, 1)), mean, atol=1e-4)


def test_residuals_that_say_nothing_of_the_output_are_read_as_the_mean(texts):
    """Shuffled Jacobians of another seed carry nothing, so the gain that is fitted is that of the mean alone."""
    model = strong_blocks("small:mlp-2l")
    names = lens_hook_points(2)[:2]
    generator = torch.Generator().manual_seed(0)
    noise = {name: torch.randn(64, 64, generator=generator) for name in names}
    settings = JacobianSettings(model="", weight_hash="", source="", context_length=12, skip=2)
    means = mean_residuals(model, names, texts[0], settings)
    assert max(fit_gains(model, noise, means, texts[0], settings).gains.values()) < 0.1


def test_it_is_measured_beside_nulls_on_held_out_text(lens):
    assert [layer.hook_point for layer in lens.layers] == list(lens_hook_points(2)[:2])
    for layer in lens.layers:
        assert 0 < layer.agreement <= 1
        nulls = (layer.kl_mean, layer.kl_untrained, layer.kl_shuffled)
        assert layer.kl_jacobian.estimate < min(null.estimate for null in nulls)
        assert layer.below_mean.low > 0
        assert layer.kl_jacobian.low < layer.kl_jacobian.estimate < layer.kl_jacobian.high
        assert np.isnan(layer.kl_tuned.estimate)


def test_the_measured_distance_is_that_of_torch_over_all_held_out_positions(model, texts, lens):
    names = [*(layer.hook_point for layer in lens.layers), lens_hook_points(2)[-1]]
    _, values = run_with_cache(model, texts[1], names)
    target, *readings = (
        final_norm_and_unembed(model, resid[:, 1:]).detach().log_softmax(-1)
        for resid in (values[names[-1]], *(lens.translate(name, values[name]) for name in names[:-1]))
    )
    for layer, reading in zip(lens.layers, readings, strict=True):
        kl = torch.nn.functional.kl_div(reading, target, log_target=True, reduction="none").sum(-1)
        assert layer.kl_jacobian.estimate == pytest.approx(float(kl.mean()), rel=0.15)


def test_distances_are_the_same_in_blocks_of_any_size(model, texts, monkeypatch):
    names = list(lens_hook_points(2)[:2])
    sample = draw_positions(model, texts[1], names, 50, n_contexts=20, seed=0, stream=("test",))
    assert sorted(sample.text.bincount().tolist()) == [2] * 10 + [3] * 10
    readings = {"logit": lambda _, resid: resid, "mean": lambda _, resid: resid.new_ones(1, 64)}
    whole = distances(model, sample, readings)
    monkeypatch.setattr("interp.lenses.lens_training.LOGITS", 7 * model.cfg.d_vocab)
    for name, of in distances(model, sample, readings).items():
        for reading, kl in of.items():
            assert torch.allclose(kl, whole[name][reading], atol=1e-5)


def test_the_doctor_asks_for_better_than_none_and_than_a_constant():
    """A lens of its own layers passes; of other layers, and one that is a constant, it does not."""
    model = affine_model()
    text = torch.randint(97, 123, (90, 12), generator=torch.Generator().manual_seed(0))
    fit = fit_jacobian_lens(model, text[:70], text[70:], CONFIG)
    setup = set_up(model)
    constant = replace(fit, layers=tuple(replace(layer, gain=0.0) for layer in fit.layers))
    other = replace(fit, jacobians=fit.jacobians[::-1].copy() * -1)
    verdicts = [on_text.run(FittedLens(setup, lens)).verdict for lens in (fit, constant, other)]
    assert verdicts == ["passed", "failed", "failed"]


def test_an_untrained_model_has_no_lens_of_another(model, lens, texts):
    twin = untrained_model(model, 5)
    with pytest.raises(MismatchError, match="--kind jacobian"):
        logit_lens(twin, texts[1][:1], lens=lens)


def test_an_interrupted_fit_gives_the_same_numbers(model, texts, lens, tmp_path):
    drafts = []

    def draft(settings):
        drafts.append(Draft.open(tmp_path / "lens", kind="jacobian_lens", config=settings_json(settings), seed=0))
        return drafts[-1]

    def stop(done, total, facts):
        if done == 3:
            raise KeyboardInterrupt

    how = {"source": "random", "draft": draft}
    with pytest.raises(KeyboardInterrupt):
        fit_jacobian_lens(model, *texts, CONFIG, **how, progress=stop)
    rounds = []
    again = fit_jacobian_lens(model, *texts, CONFIG, **how, progress=lambda done, *_: rounds.append(done))
    save_artefact(again, tmp_path / "lens", draft=drafts[-1])
    assert rounds == [4]
    stored = open_artefact(JacobianLens, tmp_path / "lens")
    assert np.array_equal(stored.jacobians, lens.jacobians)
    assert np.array_equal(stored.means, lens.means)
    assert [replace(layer, kl_tuned=0) for layer in stored.layers] == [replace(x, kl_tuned=0) for x in lens.layers]


def test_published_files_go_out_and_in(model, texts, lens, tmp_path):
    from transformer_lens.tools.analysis import JacobianLens as Theirs

    path = tmp_path / "lens.pt"
    write_published(lens, path)
    theirs = Theirs.load(str(path))
    assert theirs.source_layers == [0]
    assert torch.equal(theirs.jacobians[0], torch.from_numpy(lens.jacobians[1]).float())
    theirs.save(str(tmp_path / "theirs.pt"))
    for file in (path, tmp_path / "theirs.pt"):  # theirs has no means and gains: they are measured again
        back = import_jacobian_lens(file, model, *texts, CONFIG)
        assert np.array_equal(back.jacobians[0], lens.jacobians[1])
        assert np.array_equal(back.means[0], lens.means[1])
        assert back.layers[0].kl_jacobian == lens.layers[1].kl_jacobian
        assert back.layers[0].gain == lens.layers[1].gain


def test_checkpoints_of_a_fit_are_divided_by_their_texts(tmp_path):
    torch.save({"jacobian_sum": {3: 6 * torch.eye(4)}, "n_done": 3, "target_layer": 7}, tmp_path / "fit.pt")
    found = read_published(tmp_path / "fit.pt")
    assert torch.equal(found.jacobians[3], 2 * torch.eye(4))
    assert (found.n_prompts, found.metadata["target_layer"]) == (3, 7)


class Runs:
    """What a pickle could run."""

    def __reduce__(self):
        return (print, ("executed",))


OTHER_FORMS = {
    "code": {"J": Runs()},
    "no layer": {"J": {}},
    "no lens": {"n_prompts": 3},
    "not square": {"J": {0: torch.ones(2, 3)}},
    "not finite": {"J": {0: torch.full((2, 2), torch.nan)}},
    "means of another width": {
        "J": {0: torch.eye(2)},
        "means": {0: torch.ones(3)},
        "end": torch.ones(3),
        "gains": {0: 1},
    },
    "a gain of no layer": {"J": {0: torch.eye(2)}, "means": {}, "end": torch.ones(2), "gains": {}},
    "no text": {"jacobian_sum": {0: torch.eye(2)}, "n_done": 0},
    "a list": [1, 2],
}


@pytest.mark.parametrize("held", OTHER_FORMS.values(), ids=OTHER_FORMS)
def test_files_of_another_form_are_refused(held, tmp_path, capsys):
    torch.save(held, tmp_path / "lens.pt")
    with pytest.raises(CorruptError, match=r"lens\.pt"):
        read_published(tmp_path / "lens.pt")
    assert "executed" not in capsys.readouterr().out


def test_a_lens_of_another_model_is_refused(model, texts, tmp_path):
    with pytest.raises(MissingError):
        read_published(tmp_path / "none.pt")
    for held in ({0: torch.eye(8)}, {5: torch.eye(64)}):
        torch.save({"J": held, "n_prompts": 1, "d_model": 8}, tmp_path / "lens.pt")
        with pytest.raises(MismatchError, match="blocks"):
            import_jacobian_lens(tmp_path / "lens.pt", model, *texts, CONFIG)


def test_too_little_text_or_memory_is_refused_before_anything_runs(model, texts):
    with pytest.raises(ConfigError, match="skip"):
        fit_jacobian_lens(model, texts[0][:, :3], texts[1], CONFIG)
    with pytest.raises(ConfigError, match="layers to fit"):
        fit_jacobian_lens(model, *texts, replace(CONFIG, layers=(2,)))
    with pytest.raises(ConfigError, match="--texts"):
        fit_jacobian_lens(model, texts[0].repeat(1, 3000), texts[1], replace(CONFIG, texts=10**6))
    with pytest.raises(ConfigError):
        JacobianLensConfig(rounds=0)


@pytest.mark.parametrize("d_model", [1, 5, 48, 49, 64, 576, 577])
def test_a_round_gives_every_dimension_one_text(d_model):
    k, n_passes = batches_of(d_model, 48)
    dims = [dim for i in range(n_passes) for dim in range(i, i + k * n_passes, n_passes) if dim < d_model]
    assert k <= 48
    assert sorted(dims) == list(range(d_model))


def test_the_vocabulary_has_the_gradient_of_every_logit(model):
    read = read_directions(model)
    direction = torch.randn(64, generator=torch.Generator().manual_seed(0))
    normed = direction - direction.mean()
    logits = [final_norm_and_unembed(model, sign * direction[None, None])[0, 0].detach().float() for sign in (1, -1)]
    effect = (logits[0] - logits[1]) / 2
    effect = effect - effect.mean()
    assert float(torch.corrcoef(torch.stack([effect, read @ normed]))[0, 1]) > 0.9999
    assert float(read.mean(0).abs().max()) < 1e-5


def test_a_vocabulary_is_kept_by_the_weights(model):
    kept = vocabulary_of(model)
    carried = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    logits = carried @ np.asarray(kept.directions, np.float32).T
    assert np.allclose(kept.scale(carried), logits.std(1), rtol=1e-2)
    assert np.allclose(kept.logits(carried, [97, 98]), logits[:, [97, 98]], rtol=2e-2, atol=1e-3)
    assert open_vocabulary("0" * 64) is None
