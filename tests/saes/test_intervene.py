"""Hooks that put an SAE into a model."""

from dataclasses import replace

import pytest
import torch
from make_features import write_features
from make_saes import saved
from placed import KINDS as PLACED
from placed import new_tiny, random_sae, random_task, tiny
from test_kinds import make_others, make_saes

from interp.errors import ConfigError, MismatchError, UnknownNameError
from interp.models.adapter import bos_token_id, run_with_hooks
from interp.models.identity import weight_hash
from interp.notes import Notes, Recipe, Step
from interp.workspace import Workspace
from saes.features.intervene import (
    ablate,
    clamp,
    keep_positions,
    load_recipe,
    splice,
    splice_hooks,
    steer,
    steer_hooks,
)


@pytest.fixture(params=[0, 1], ids=["topk", "jumprelu"])
def sae(request):
    return make_saes()[request.param]


@pytest.fixture
def value():
    return torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0)) * 3


def test_splicing_puts_the_reconstruction_in(sae, value):
    torch.testing.assert_close(splice(sae)(value), sae(value))


def test_splicing_with_the_error_kept_changes_nothing(sae, value):
    assert torch.equal(splice(sae, keep_error=True)(value), value)


def test_ablating_removes_exactly_that_features_direction(sae, value):
    acts = sae.encode(value)
    feature = int(acts.sum((0, 1)).argmax())
    changed = splice(sae, keep_error=True, edit=ablate(sae, feature))(value)
    expected = value - acts[..., feature, None] * sae.W_dec[feature]
    torch.testing.assert_close(changed, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(changed, value)


def test_ablating_a_silent_feature_changes_nothing(sae, value):
    silent = int((sae.encode(value).sum((0, 1)) == 0).nonzero()[0])
    torch.testing.assert_close(splice(sae, keep_error=True, edit=ablate(sae, silent))(value), value)


def test_clamping_sets_the_feature_everywhere(sae, value):
    edited = clamp(sae, 3, 2.5)(sae.encode(value))
    assert (edited[..., 3] == 2.5).all()
    assert torch.equal(edited[..., 4:], sae.encode(value)[..., 4:])


def test_steering_adds_the_direction(sae, value):
    torch.testing.assert_close(
        steer(sae, 5, 4.0)(value) - value, (4 * sae.W_dec[5]).expand_as(value), atol=1e-5, rtol=0
    )


def test_the_dtype_of_the_model_is_kept(sae, value):
    assert splice(sae)(value.bfloat16()).dtype == torch.bfloat16
    assert steer(sae, 0, 1.0)(value.bfloat16()).dtype == torch.bfloat16


def test_kept_positions_pass_through(value):
    out = keep_positions(lambda value, hook=None: torch.zeros_like(value), 2)(value)
    assert torch.equal(out[:, :2], value[:, :2])
    assert not out[:, 2:].any()


def test_a_feature_that_is_not_there_is_refused(sae):
    for make in (lambda: ablate(sae, 64), lambda: clamp(sae, -1, 0.0), lambda: steer(sae, 999, 1.0)):
        with pytest.raises(ConfigError, match="features 0 to 63"):
            make()


EDITS = {"none": lambda sae: None, "ablate": lambda sae: ablate(sae, 3, 5), "clamp": lambda sae: clamp(sae, 3, 2.5)}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("keep_error", [True, False], ids=["error kept", "error dropped"])
@pytest.mark.parametrize("kind", PLACED)
def test_every_combination_puts_its_formula_into_the_model(kind, keep_error, edit):
    """For transcoders too: read at the MLP's input, replaced at its output; the BOS position keeps its value."""
    model, sae, tokens = tiny("llama-gqa"), random_sae(kind, 0), random_task(tiny("llama-gqa")).clean
    place = sae.hook_point_out or sae.hook_point
    change = EDITS[edit](sae)
    seen = {}

    def note(name):
        def hook(value, hook):
            seen[name] = value

        return hook

    with torch.no_grad():
        model.run_with_hooks(tokens, fwd_hooks=[(name, note(name)) for name in {sae.hook_point, place}])
        x, value = seen[sae.hook_point], seen[place]
        acts = sae.encode(x)
        edited = change(acts) if change else acts
        expected = sae.complete(sae.decode(edited), x)
        if keep_error:
            expected = expected + value - sae.complete(sae.decode(acts), x)
        expected[:, :1] = value[:, :1]
        logits = model.run_with_hooks(tokens, fwd_hooks=[(place, lambda v, hook: expected)])
        hooks = splice_hooks(sae, keep_error=keep_error, edit=change, first=1)
        assert [name for name, _ in hooks] == list(dict.fromkeys([sae.hook_point, place]))
        ours = model.run_with_hooks(tokens, fwd_hooks=hooks)
        clean = model(tokens)
    torch.testing.assert_close(ours, logits, atol=1e-4, rtol=1e-4)
    if keep_error and edit == "none":
        assert torch.equal(ours, clean)
    else:
        assert not torch.allclose(ours, clean, atol=1e-3)


@pytest.mark.parametrize("kind", PLACED)
def test_steering_adds_what_a_unit_of_the_feature_writes(kind):
    model, sae, tokens = tiny("llama-gqa"), random_sae(kind, 0), random_task(tiny("llama-gqa")).clean
    seen = {}

    def note(value, hook):
        seen[hook.name] = value

    [(place, hook)] = steer_hooks(sae, 7, 3.0, first=2)
    assert place == (sae.hook_point_out or sae.hook_point)
    with torch.no_grad():
        model.run_with_hooks(tokens, fwd_hooks=[(place, note)])
        [before] = seen.values()
        model.run_with_hooks(tokens, fwd_hooks=[(place, hook), (place, note)])
        [after] = seen.values()
    scale = sae.scale(before).size if kind in ("layer_norm", "constant_norm_rescale") else torch.ones(1)
    added = (3 * scale * sae.W_dec[7]).expand_as(before).clone()
    added[:, :2] = 0
    torch.testing.assert_close(after - before, added, atol=1e-4, rtol=1e-3)


def test_a_crosscoder_is_spliced_nowhere():
    crosscoder = make_others()[-1]
    for make in (lambda: splice(crosscoder), lambda: splice_hooks(crosscoder), lambda: steer(crosscoder, 0, 1.0)):
        with pytest.raises(ConfigError, match="reads several hook points"):
            make()


# Recipes: saved interventions, loaded by name


@pytest.fixture
def cooking(tmp_path):
    """A model, a workspace with an SAE and features of it, of neurons too, and the SAE."""
    model = tiny("llama-gqa")
    sae = random_sae("jumprelu", 0)
    sae.metadata = replace(sae.metadata, weight_hash=weight_hash(model))
    workspace = Workspace(tmp_path / "workspace", create=True)
    saved(workspace, "demo", sae)
    for name, dictionary in (("demo", "sae:demo"), ("mlp", "neurons:blocks.0.mlp.hook_post")):
        write_features(workspace, name, [], dictionary=dictionary)
    return model, workspace, sae


def save_recipe(workspace, *steps):
    Notes.open(workspace).save_recipe(Recipe(name="up", steps=tuple(Step(**each) for each in steps)))


def test_a_recipe_does_what_its_hooks_written_out_do(cooking):
    model, workspace, sae = cooking
    steps = [("features/demo", 3, "add", 2.0), ("saes/demo", 5, "clamp", 1.5), ("saes/demo", 6, "ablate", 0.0)]
    save_recipe(
        workspace, *(dict(zip(("dictionary", "feature", "action", "amount"), each, strict=True)) for each in steps)
    )
    tokens = torch.randint(0, model.cfg.d_vocab, (2, 7), generator=torch.Generator().manual_seed(0))
    first = int(bos_token_id(model) is not None)

    def edit(acts):
        return ablate(sae, 6)(clamp(sae, 5, 1.5)(acts))

    written = steer_hooks(sae, 3, 2.0, first=first) + splice_hooks(sae, keep_error=True, edit=edit, first=first)
    hooks = load_recipe(workspace.root, "up").hooks(model)
    found = run_with_hooks(model, tokens, hooks)
    torch.testing.assert_close(found, run_with_hooks(model, tokens, written))
    assert not torch.allclose(found, run_with_hooks(model, tokens, []))


def test_a_recipe_on_neurons_changes_those_neurons_alone(cooking):
    model, workspace, _ = cooking
    save_recipe(
        workspace,
        {"dictionary": "features/mlp", "feature": 0, "amount": 2.0},
        {"dictionary": "features/mlp", "feature": 1, "action": "clamp", "amount": 5.0},
        {"dictionary": "features/mlp", "feature": 2, "action": "ablate"},
    )
    hooks = load_recipe(workspace, "up").hooks(model)
    assert {name for name, _ in hooks} == {"blocks.0.mlp.hook_post"}
    value = changed = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(1))
    for _, hook in hooks:
        changed = hook(changed)
    expected = value.clone()
    first = int(bos_token_id(model) is not None)
    expected[:, first:, 0] += 2
    expected[:, first:, 1] = 5
    expected[:, first:, 2] = 0
    torch.testing.assert_close(changed, expected)


def test_a_recipe_is_refused_on_other_weights_and_an_unknown_one_lists_the_nearest(cooking):
    _, workspace, _ = cooking
    save_recipe(workspace, {"dictionary": "features/demo", "feature": 3, "amount": 2.0})
    with pytest.raises(UnknownNameError, match="did you mean 'up'"):
        load_recipe(workspace, "ups")
    other = new_tiny("llama-gqa")
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    recipe = load_recipe(workspace, "up")
    with pytest.raises(MismatchError):
        recipe.hooks(other)
    assert recipe.hooks(other, allow_other_weights=True)


def test_a_recipe_whose_dictionary_is_gone_says_which(cooking):
    _, workspace, _ = cooking
    save_recipe(workspace, {"dictionary": "features/gone", "feature": 3, "amount": 2.0})
    with pytest.raises(UnknownNameError, match="gone"):
        load_recipe(workspace, "up")
