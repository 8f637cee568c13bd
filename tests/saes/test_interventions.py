"""Interventions on latents, directions and components: each is its formula, cached or not, and a recipe repeats it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from make_features import write_features
from make_saes import saved
from placed import KINDS as PLACED
from placed import random_sae, random_task
from test_kinds import make_others, make_saes

from interp.errors import ConfigError, CorruptError, MismatchError, UnknownNameError
from interp.interventions.apply import hooks_of, intervened
from interp.interventions.edits import from_position
from interp.interventions.intervention import Component, Direction, Intervention, Latent
from interp.interventions.recipe import Recipe, read_recipe, write_recipe
from interp.models.adapter import bos_token_id, run_with_hooks
from interp.models.generation import NextToken, Offset, generate, sampled
from interp.models.identity import weight_hash
from interp.models.passes import capture
from interp.notes import Notes
from interp.workspace import Workspace
from saes.evaluation.in_model import splice, splice_hooks
from saes.features.recipes import load_recipe, recipe_for
from tests.interp.architectures import ALL_NAMES, new_tiny, tiny

MODEL = "llama-gqa"
LAST = "blocks.1.hook_resid_post"
ACTIONS = {
    "add": lambda acts: acts + 2.5,
    "scale": lambda acts: acts * 3,
    "set": lambda acts: torch.full_like(acts, 2.5),
    "ablate": torch.zeros_like,
}
AMOUNTS = {"add": 2.5, "scale": 3.0, "set": 2.5, "ablate": 0.0}


@pytest.fixture(params=[0, 1], ids=["topk", "jumprelu"])
def sae(request):
    return make_saes()[request.param]


@pytest.fixture
def value():
    return torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture(params=["topk", "jumprelu"])
def placed_sae(request):
    """An SAE at the end of the last layer of the model."""
    sae = random_sae(request.param, 0)
    sae.hook_point = LAST
    sae.metadata = replace(sae.metadata, hook_point=LAST)
    return sae


def on_latent(index: int, action: str = "add", amount: float = 0.0, **more) -> Intervention:
    return Intervention(target=Latent(dictionary="sae", index=index), action=action, amount=amount, **more)


def tokens_of(model) -> torch.Tensor:
    return torch.randint(0, model.cfg.d_vocab, (2, 7), generator=torch.Generator().manual_seed(0))


def test_splicing_puts_the_reconstruction_in(sae, value):
    torch.testing.assert_close(splice(sae)(value), sae(value))
    assert splice(sae)(value.bfloat16()).dtype == torch.bfloat16


def test_kept_positions_pass_through(value):
    out = from_position(lambda value, hook=None: torch.zeros_like(value), 2)(value)
    assert torch.equal(out[:, :2], value[:, :2])
    assert not out[:, 2:].any()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("kind", PLACED)
def test_every_action_on_a_latent_is_its_formula_on_the_reconstruction(kind, action):
    """The value plus the difference of the edited reconstruction from the plain one: the error stays as it is.

    For transcoders too: read at the MLP's input, written at its output. Other positions keep their values.
    """
    model, sae, tokens = tiny(MODEL), random_sae(kind, 0), random_task(tiny(MODEL)).clean
    reads, writes = sae.hook_point, sae.hook_point_out or sae.hook_point
    seen = capture(model, tokens, [reads, writes])
    x, before = seen[reads], seen[writes]
    acts = sae.encode(x)
    edited = acts.clone()
    edited[..., 3] = ACTIONS[action](acts[..., 3])
    expected = before + sae.complete(sae.decode(edited), x) - sae.complete(sae.decode(acts), x)
    expected[:, :1] = before[:, :1]
    step = on_latent(3, action, AMOUNTS[action], positions=(1, None))
    hooks = hooks_of(model, [step], {"sae": sae})
    after = capture(model, tokens, [writes], hooks=hooks)[writes]
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-5)
    if action in ("add", "set"):
        assert not torch.allclose(after, before, atol=1e-3)


def test_without_the_error_the_model_runs_on_the_edited_reconstruction(placed_sae):
    sae = placed_sae
    model, tokens = tiny(MODEL), tokens_of(tiny(MODEL))
    hooks = hooks_of(
        model, [on_latent(3, "set", 2.5, positions=(1, None))], {"sae": sae}, between=splice_hooks(sae, first=1)
    )
    before, after = (capture(model, tokens, [LAST], hooks=each)[LAST] for each in ([], hooks))
    acts = sae.encode(before)
    acts[..., 3] = 2.5
    torch.testing.assert_close(after[:, 1:], sae.decode(acts)[:, 1:], atol=1e-4, rtol=1e-4)


def test_steps_on_one_latent_are_done_in_turn_and_others_do_not_meet(placed_sae):
    sae = placed_sae
    model, tokens = tiny(MODEL), tokens_of(tiny(MODEL))

    def change(*steps: Intervention) -> torch.Tensor:
        hooks = hooks_of(model, steps, {"sae": sae})
        return capture(model, tokens, [LAST], hooks=hooks)[LAST] - capture(model, tokens, [LAST])[LAST]

    torch.testing.assert_close(
        change(on_latent(3, "set", 2.0), on_latent(3, "scale", 2.0)),
        change(on_latent(3, "set", 4.0)),
        atol=1e-5,
        rtol=0,
    )
    both = change(on_latent(3, "add", 2.0), on_latent(5, "ablate"))
    torch.testing.assert_close(
        both, change(on_latent(3, "add", 2.0)) + change(on_latent(5, "ablate")), atol=1e-5, rtol=0
    )


def test_a_control_writes_the_same_amounts_along_another_vector(placed_sae):
    sae = placed_sae
    model, tokens = tiny(MODEL), tokens_of(tiny(MODEL))
    vector = np.eye(32)[2]
    along = Direction(hook_point=LAST, vector=vector, origin="axis 2")
    before = capture(model, tokens, [LAST])[LAST]
    hooks = hooks_of(model, [on_latent(3, "set", 2.0, along=along)], {"sae": sae})
    change = capture(model, tokens, [LAST], hooks=hooks)[LAST] - before
    expected = (2.0 - sae.encode(before)[..., 3, None]) * torch.tensor(vector, dtype=torch.float32)
    torch.testing.assert_close(change[:, 1:], expected[:, 1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_on_a_direction_changes_that_coordinate_alone(action):
    model, tokens = tiny(MODEL), tokens_of(tiny(MODEL))
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1)) * 3
    target = Direction(hook_point=LAST, vector=vector.double().numpy(), origin="random")
    before = capture(model, tokens, [LAST])[LAST]
    hooks = hooks_of(model, [Intervention(target=target, action=action, amount=AMOUNTS[action], positions=(1, None))])
    after = capture(model, tokens, [LAST], hooks=hooks)[LAST]
    read = vector / vector.square().sum()
    torch.testing.assert_close((after @ read)[:, 1:], ACTIONS[action](before @ read)[:, 1:], atol=1e-5, rtol=1e-4)
    rest = torch.eye(32) - torch.outer(read, vector)
    torch.testing.assert_close(after @ rest, before @ rest, atol=1e-5, rtol=1e-4)
    assert torch.equal(after[:, 0], before[:, 0])


@pytest.mark.parametrize(("name", "point", "slot"), [
    ("L1H2", "blocks.1.attn.hook_z", (slice(None), slice(1, None), 2)),
    ("L1MLP", "blocks.1.hook_mlp_out", (slice(None), slice(1, None))),
    ("L0N5", "blocks.0.mlp.hook_post", (slice(None), slice(1, None), 5)),
])  # fmt: skip
@pytest.mark.parametrize("action", ["ablate", "scale", "replace"])
def test_a_component_is_ablated_scaled_or_replaced_by_its_value_in_another_run(name, point, slot, action):
    model, tokens = tiny(MODEL), tokens_of(tiny(MODEL))
    other = tuple(reversed(tokens[0].tolist()))
    step = Intervention(
        target=Component(name=name), action=action, amount=3.0 if action == "scale" else 0.0,
        other=other if action == "replace" else (), positions=(1, None),
    )  # fmt: skip
    before = capture(model, tokens, [point])[point]
    expected = before.clone()
    source = capture(model, torch.tensor([other]), [point])[point].expand_as(before)
    expected[slot] = {"ablate": torch.zeros_like(before), "scale": 3 * before, "replace": source}[action][slot]
    with torch.no_grad(), intervened(model, [step]):
        _, cache = model.run_with_cache(tokens, names_filter=[point])
    torch.testing.assert_close(cache[point], expected)


def test_positions_are_counted_from_the_start_of_the_text_also_behind_a_cache():
    model, sae = tiny(MODEL), random_sae("jumprelu", 0)
    prompt, steps = tokens_of(model)[:1], [
        on_latent(3, "set", 8.0, positions=(5, None)),
        on_latent(4, "add", 8.0, positions=(2, 8)),
    ]  # fmt: skip

    def written(cached: bool) -> list[int]:
        offset = Offset() if cached else None
        step = NextToken(model, hooks_of(model, steps, {"sae": sae}, offset=offset), offset=offset)
        return torch.cat(list(generate(step, prompt, 6))).tolist()

    assert written(cached=True) == written(cached=False)
    assert written(cached=True) != torch.cat(list(generate(NextToken(model), prompt, 6))).tolist()


@pytest.mark.parametrize("name", ALL_NAMES)
def test_a_cached_pass_gives_the_logits_of_the_whole_text(name):
    model = tiny(name)
    tokens, step = tokens_of(model), NextToken(model)
    for n in (3, 4, 7):
        torch.testing.assert_close(step(tokens[:, :n]), model(tokens[:, :n])[:, -1].float(), atol=1e-4, rtol=1e-4)


def test_equal_distributions_give_equal_tokens():
    draw = sampled(1.0, torch.Generator().manual_seed(0))
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(1)).expand(3, -1)
    found = torch.stack([draw(logits) for _ in range(20)])
    assert (found == found[:, :1]).all()
    assert len(set(found[:, 0].tolist())) > 3
    with pytest.raises(ConfigError, match="at least 0"):
        sampled(-1.0, torch.Generator())


def test_what_cannot_be_done_is_refused(placed_sae):
    sae = placed_sae
    model = tiny(MODEL)
    short = Direction(hook_point=LAST, vector=np.ones(3), origin="short")
    for steps, error, says in [
        ([on_latent(999)], ConfigError, "features 0 to 79"),
        ([Intervention(target=Latent(dictionary="gone", index=0))], UnknownNameError, "gone"),
        ([Intervention(target=Component(name="L9H0"), action="ablate")], UnknownNameError, "L9H0"),
        ([on_latent(3, along=short)], MismatchError, "short"),
    ]:
        with pytest.raises(error, match=says):
            hooks_of(model, steps, {"sae": sae})
    with pytest.raises(MismatchError, match="3 numbers"):
        run_with_hooks(model, tokens_of(model), hooks_of(model, [Intervention(target=short, amount=1.0)]))
    with pytest.raises(ConfigError, match="tokens of another run"):
        Intervention(target=Component(name="L0H0"), action="replace")
    with pytest.raises(ConfigError, match="finite"):
        on_latent(3, amount=float("nan"))
    with pytest.raises(UnknownNameError):
        Component(name="L0Q1")


def test_a_crosscoder_is_spliced_nowhere():
    crosscoder = make_others()[-1]
    for make in (
        lambda: splice(crosscoder),
        lambda: splice_hooks(crosscoder),
        lambda: hooks_of(tiny(MODEL), [on_latent(0)], {"sae": crosscoder}),
    ):
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
    """Save steps of `(dictionary, feature, action, amount)`."""
    made = [
        Intervention(target=Latent(dictionary=key, index=index), action=action, amount=amount)
        for key, index, action, amount in steps
    ]
    Notes.open(workspace).save_recipe(Recipe(name="up", steps=tuple(made)))


def test_a_recipe_does_what_its_interventions_do(cooking):
    model, workspace, sae = cooking
    save_recipe(
        workspace, ("features/demo", 3, "add", 2.0), ("saes/demo", 5, "set", 1.5), ("saes/demo", 6, "ablate", 0.0)
    )
    tokens = tokens_of(model)
    written = hooks_of(
        model, [on_latent(3, "add", 2.0), on_latent(5, "set", 1.5), on_latent(6, "ablate")], {"sae": sae}
    )
    found = run_with_hooks(model, tokens, load_recipe(workspace.root, "up").hooks(model))
    torch.testing.assert_close(found, run_with_hooks(model, tokens, written))
    assert not torch.allclose(found, run_with_hooks(model, tokens, []))


def test_a_recipe_on_neurons_changes_those_neurons_alone(cooking):
    model, workspace, _ = cooking
    save_recipe(
        workspace, ("features/mlp", 0, "add", 2.0), ("features/mlp", 1, "set", 5.0), ("features/mlp", 2, "ablate", 0.0)
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


def test_a_recipe_in_a_file_is_the_same_on_another_machine_and_refused_for_another_model_or_hook_point(
    cooking, tmp_path: Path
):
    model, workspace, sae = cooking
    direction = Direction(hook_point=LAST, vector=np.linspace(-1, 1, 32), origin="a ramp")
    steps = [
        Intervention(target=Latent(dictionary="saes/demo", index=3), amount=2.0),
        Intervention(target=direction, action="ablate", positions=(2, None)),
        Intervention(target=Component(name="L0H1"), action="replace", other=(1, 2, 3, 4, 5, 6, 7)),
    ]
    path = tmp_path / "up.json"
    write_recipe(recipe_for(model, "up", steps, {"saes/demo": sae}, "Once"), path)
    loaded = load_recipe(workspace, str(path))
    assert loaded.recipe.prompt == "Once"
    tokens = tokens_of(model)
    here = run_with_hooks(model, tokens, hooks_of(model, steps, {"saes/demo": sae}))
    torch.testing.assert_close(run_with_hooks(model, tokens, loaded.hooks(model)), here)
    other = new_tiny(MODEL)
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    with pytest.raises(MismatchError, match="was made for"):
        loaded.hooks(other)
    raw = json.loads(path.read_text())
    raw["dictionaries"]["saes/demo"]["0"]["reads"] = "blocks.0.hook_resid_pre"
    path.write_text(json.dumps(raw))
    with pytest.raises(MismatchError, match=r"blocks\.0\.hook_resid_pre"):
        load_recipe(workspace, str(path)).hooks(model)
    raw["steps"][1]["target"]["vector"][0] = "x"
    path.write_text(json.dumps(raw))
    with pytest.raises(CorruptError, match=r"up\.json: steps\.1"):
        read_recipe(path)


def test_a_recipe_is_refused_on_other_weights_and_an_unknown_one_lists_the_nearest(cooking):
    _, workspace, _ = cooking
    save_recipe(workspace, ("features/demo", 3, "add", 2.0))
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
    save_recipe(workspace, ("features/gone", 3, "add", 2.0))
    with pytest.raises(UnknownNameError, match="gone"):
        load_recipe(workspace, "up")
