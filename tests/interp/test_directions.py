"""Directions from examples: a planted one works, an untrained model has none, files say the same."""

import json
import re
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from architectures import blank
from make_direction import made_up_choice

from interp.directions._variants import methods
from interp.directions.choice import chosen_cell
from interp.directions.choosing import Candidate, candidate, choose_steering, spread_layers
from interp.directions.config import DirectionConfig
from interp.directions.examples import ContrastPair, ContrastPairs, examples_of_texts, read_examples
from interp.directions.files import read_directions, read_vector, transformers_code, write_directions
from interp.directions.making import TwoLists, make_direction
from interp.directions.questions import neutral_text, reply_questions
from interp.directions.sides import encode_sides, read_sides
from interp.errors import ConfigError, CorruptError, MismatchError, MissingError, PromptError, UnknownNameError
from interp.interventions.apply import intervened
from interp.interventions.intervention import Direction, Intervention, everywhere
from interp.interventions.recipe import Recipe
from interp.models.adapter import to_tokens
from interp.models.loading import load_model
from interp.models.small import SmallConfig
from interp.statistics import Interval

POINT = "blocks.0.hook_resid_post"
D = 24
STARTS = ("One day", "Then he", "It was", "She said", "We saw", "The dog", "My hat", "Her car",
          "At noon", "So they", "But I", "In May", "No one", "As if", "To be", "You and")  # fmt: skip
ENDS = ("abc", "bca", "cab", "bac")
PAIRS = tuple(
    ContrastPair(prompt=f"{start} ", towards=ENDS[i % 4], away=ENDS[i % 4].upper()) for i, start in enumerate(STARTS)
)
REPLIES = ContrastPairs(kind="replies", pairs=PAIRS, source="made up")
TEXT = ("0123456789 0123456789", "9876543210 9876543210", "1357924680 1357924680", "0246813579 0246813579")
QUICK = DirectionConfig(strengths=(0.5, 1.0), n_random=5, n_judging=19)


def small(seed: int = 0, layers: int = 2):
    return load_model(SmallConfig(n_layers=layers, d_model=D, n_heads=2, normalization=None), seed=seed)


def planted_model():
    """A model without attention or MLP, in which one coordinate says "small letters" and raises them."""
    model = blank(n_layers=2, d_model=D, n_heads=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.W_E.copy_(0.1 * torch.randn(model.W_E.shape, generator=generator))
        letters = torch.tensor(list(b"abcdefghijklmnopqrstuvwxyz"))
        model.W_E[letters, 3] += 1.0
        model.unembed.original_component.weight[letters, 3] = 2.0
    return model


@pytest.fixture(scope="module")
def planted():
    return planted_model()


def choose(model, along: Candidate, config: DirectionConfig):
    return choose_steering(model, [along], reply_questions(model, REPLIES), neutral_text(model, TEXT), config=config)


@pytest.fixture(scope="module")
def made(planted):
    return make_direction(planted, REPLIES, QUICK, name="small letters")


def test_the_planted_direction_is_found_chosen_and_works_on_what_did_not_choose_it(made):
    assert made.direction.vector[3] > 0.9
    assert made.choice.works
    assert made.choice.judged.wrong == 0
    assert made.choice.judged.effect.low > made.choice.judged.random_effect.max()
    assert made.choice.judged.p == pytest.approx(1 / 20)
    assert made.choice.n_questions == made.choice.judged.n_questions == 8
    assert {"difference in means", "PCA of differences", "probe", "LDA", "mass-mean"} == set(made.variants)
    for each in made.variants.values():
        assert each.accuracy.accuracy == 1.0
        assert each.accuracy.shuffled < 0.8
    assert made.variants["PCA of differences"].cosine > 0.9


def test_the_effect_is_that_of_a_plain_loop(planted):
    """Every cell against one pass per side with the intervention of the house."""
    sides = read_sides(planted, REPLIES, [POINT])
    along = candidate(sides, POINT, methods(sides)["difference in means"])
    found = choose_steering(
        planted, [along], reply_questions(planted, REPLIES), neutral_text(planted, TEXT), config=QUICK
    )

    def score(example: ContrastPair, strength: float) -> float:
        step = Intervention(
            target=Direction(hook_point=POINT, vector=along.vector, origin="planted"), amount=strength * along.unit
        )
        total = []
        for side in encode_sides(planted, example, REPLIES)[:2]:
            tokens = torch.tensor([side])
            with torch.no_grad(), intervened(planted, [step] if strength else []):
                log_p = planted(tokens)[0, :-1].double().log_softmax(-1)
            taken = log_p.gather(1, tokens[0, 1:, None])[:, 0]
            total.append(float(taken[-len(example.towards) :].mean()))
        return total[0] - total[1]

    chosen_half = [each for i, each in enumerate(PAIRS) if i % 2 == 0]
    for j, strength in enumerate(QUICK.strengths):
        expected = np.mean([score(each, strength) - score(each, 0.0) for each in chosen_half])
        assert found.effect[0, j] == pytest.approx(expected, abs=1e-5)


def test_progress_counts_every_pass_and_names_the_arm(planted):
    sides = read_sides(planted, REPLIES, [POINT])
    along = candidate(sides, POINT, methods(sides)["difference in means"])
    calls: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, facts: dict[str, str]) -> None:
        calls.append((done, total, facts["now"]))
        if stopped and facts["now"].startswith("random directions"):
            raise KeyboardInterrupt

    stopped, config = False, replace(QUICK, harmless=9.0)
    asked = planted, [along], reply_questions(planted, REPLIES), neutral_text(planted, TEXT)
    choose_steering(*asked, config=config, progress=progress)
    done, totals, names = zip(*calls, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}
    n = len(QUICK.strengths)
    assert f"damage at {POINT}: {n} of {n}" in names
    assert f"effect at {POINT}: {n} of {n}" in names
    assert any(re.fullmatch(rf"random directions at {POINT}: \d+ of \d+", name) for name in names)
    assert f"judging on the other half: {1 + QUICK.n_judging} of {1 + QUICK.n_judging}" in names
    stopped = True
    with pytest.raises(KeyboardInterrupt):
        choose_steering(*asked, config=config, progress=progress)


def shuffled_replies(seed: int) -> ContrastPairs:
    """Replies drawn without a difference between the sides."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.permutation(list("abcdefgh"))) for _ in range(32)]
    pairs = tuple(
        ContrastPair(prompt=f"{start} ", towards=words[2 * i], away=words[2 * i + 1]) for i, start in enumerate(STARTS)
    )
    return ContrastPairs(kind="replies", pairs=pairs, source="shuffled letters")


@pytest.mark.parametrize("seed", range(3))
def test_an_untrained_model_has_no_direction_that_works(seed):
    found = make_direction(small(seed), shuffled_replies(seed), QUICK)
    assert not found.choice.works
    assert found.variants["difference in means"].accuracy.accuracy < 0.9


@pytest.mark.parametrize("action", ["set", "ablate"])
def test_other_actions_do_what_their_intervention_does(planted, action):
    sides = read_sides(planted, REPLIES, [POINT])
    along = candidate(sides, POINT, methods(sides)["difference in means"])
    config = DirectionConfig(action=action, strengths=(1.0,), n_random=3, n_judging=5)
    found = choose_steering(
        planted, [along], reply_questions(planted, REPLIES), neutral_text(planted, TEXT), config=config
    )
    target = Direction(hook_point=POINT, vector=along.vector, origin="planted")
    amount = along.start + along.unit if action == "set" else 0.0
    steps = everywhere(Intervention(target=target, action=action, amount=amount), 2)
    tokens = torch.tensor([encode_sides(planted, PAIRS[0], REPLIES)[0]])
    with torch.no_grad(), intervened(planted, steps):
        changed = planted(tokens)
    with torch.no_grad():
        plain = planted(tokens)
    assert (changed - plain).abs().max() > 0.01
    assert found.effect.shape == (1, 1)
    assert found.effect[0, 0] > 0, "set raises the small letters, ablating takes away what raises them"


def test_a_cell_is_chosen_among_the_harmless_ones_beyond_chance():
    effect, damage = np.array([[1.0, 2.0], [0.5, 3.0]]), np.array([[0.0, 0.05], [0.0, 0.5]])
    random = np.zeros((2, 2, 3))
    assert chosen_cell(effect, damage, random) == (0, 1)
    random[0, 1] = [0.0, 0.0, 2.5]
    assert chosen_cell(effect, damage, random) == (0, 0)
    assert chosen_cell(effect, np.ones((2, 2)), random) is None
    assert chosen_cell(effect, damage, np.full((2, 2, 3), np.nan)) is None


@pytest.mark.parametrize(
    ("effect", "random", "placebo", "works"),
    [
        (Interval(1.9, 1.2, 2.6), 1.5, 1.5, True),  # its interval is over questions, on which they were drawn alike
        (Interval(1.9, -0.1, 3.9), 0.5, 0.5, False),
        (Interval(1.9, 1.2, 2.6), 2.0, 0.5, False),
        (Interval(1.9, 1.2, 2.6), 0.5, 2.0, False),
    ],
)
def test_a_direction_works_whose_interval_lies_above_zero_and_whose_effect_none_of_the_null_has(
    effect, random, placebo, works
):
    judged = made_up_choice(np.random.default_rng(0)).judged
    null = {"random_effect": np.array([0.1] * 18 + [random]), "placebo_effect": np.array([placebo])}
    assert replace(judged, effect=effect, **null).works is works
    assert not replace(judged, effect=effect, random_effect=null["random_effect"][1:]).works, "18 cannot reach p = 0.05"


def test_words_make_a_direction_at_a_layer_that_is_chosen(planted):
    lists = TwoLists(towards=tuple("abcdefgh"), away=tuple("ABCDEFGH"))
    found = make_direction(planted, lists, QUICK)
    assert found.direction.hook_point in spread_layers(planted)
    assert found.direction.vector[3] > 0.9
    assert "'a'" in found.choice.question


def test_two_sets_of_texts_and_a_file_of_pairs_are_read(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(f"yes {i}" for i in range(10)))
    folder = tmp_path / "b"
    folder.mkdir()
    for i in range(9):
        (folder / f"{i}.txt").write_text(f"no {i}")
    found = examples_of_texts(tmp_path / "a.txt", folder)
    assert (found.kind, len(found.pairs), found.pairs[8].away) == ("texts", 9, "no 8")
    path = tmp_path / "p.jsonl"
    pairs = [{"prompt": "x ", "towards": f"a{i}", "away": f"b{i}"} for i in range(8)]
    path.write_text("\n".join(map(json.dumps, pairs)))
    assert read_examples(path).kind == "replies"
    assert read_examples(json.dumps(pairs)).pairs == read_examples(path).pairs
    with pytest.raises(ConfigError, match="list of pairs, line 1"):
        read_examples("[1]")
    with pytest.raises(ConfigError, match="check quotes"):
        read_examples("[{]")


@pytest.mark.parametrize(
    ("lines", "error", "says"),
    [
        ([{"towards": "a", "away": "b"}] * 7, ConfigError, "7 pairs"),
        ([{"towards": "a", "away": "a"}] * 8, ConfigError, "have to differ"),
        ([{"towards": "a", "away": " "}] * 8, ConfigError, "empty"),
        ([{"towards": "a", "away": "b"}] * 7 + [{"towards": "a", "away": "b", "prompt": "x"}], ConfigError, "1 of 8"),
        ([{"towards": "a"}] * 8, ConfigError, "line 1"),
        (["{"], ConfigError, "line 1"),
    ],
)
def test_what_is_no_example_is_refused_with_its_line(tmp_path, lines, error, says):
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines))
    with pytest.raises(error, match=says):
        read_examples(path)


def test_pairs_of_one_token_sequence_and_prompts_without_targets_are_refused(planted):
    same = ContrastPairs(
        kind="replies", pairs=(ContrastPair(prompt="x ", towards="ab", away="abc"),) * 8, source="made up"
    )
    with pytest.raises(PromptError, match="same tokens"):
        read_sides(planted, same, [POINT])
    prompts = ContrastPairs(
        kind="prompts", pairs=tuple(ContrastPair(towards=f"{s} a", away=f"{s} A") for s in STARTS), source="m"
    )
    with pytest.raises(ConfigError, match="name words of the answer"):
        make_direction(planted, prompts, QUICK)
    assert make_direction(planted, prompts, DirectionConfig(targets=("q",), n_random=2, n_judging=2)).choice is not None
    with pytest.raises(UnknownNameError, match="method of a direction"):
        make_direction(planted, REPLIES, QUICK, variant="mean")


def recipe(layer: int = 1, amount: float = 3.0, **more) -> Recipe:
    target = Direction(hook_point=f"blocks.{layer}.hook_resid_post", vector=np.linspace(-1, 1, D), origin="made up")
    return Recipe(
        name="r", steps=(Intervention(target=target, amount=amount, **more),), model="m", weight_hash="0" * 64
    )


@pytest.mark.parametrize("suffix", ["safetensors", "gguf"])
def test_a_file_gives_the_same_logits(tmp_path, suffix):
    model, own = small(layers=3), recipe()
    write_directions(own, tmp_path / f"v.{suffix}", {"note": 1}, "llama")
    found = read_directions(tmp_path / f"v.{suffix}")
    assert found.weight_hash == own.weight_hash
    tokens = to_tokens(model, "what is it")
    logits = []
    for steps in (own.steps, found.steps, ()):
        with torch.no_grad(), intervened(model, steps):
            logits.append(model(tokens))
    assert (logits[0] - logits[1]).abs().max() < 1e-3
    assert (logits[0] - logits[2]).abs().max() > 0.1
    with pytest.raises(MismatchError, match="made for m"):
        found.check("1" * 64, {})


def test_a_control_vector_made_by_hand_adds_after_the_block_of_its_number(tmp_path):
    """The layer offset: llama.cpp adds `direction.N` to the output of block N, at every token. Zeros are no step."""
    path = tmp_path / "hand.gguf"
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", 2)
    vector = np.random.default_rng(0).standard_normal(D).astype(np.float32)
    writer.add_tensor("direction.1", np.zeros(D, np.float32))
    writer.add_tensor("direction.2", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model, found = small(layers=3), read_directions(path)
    tokens = to_tokens(model, "what")
    with torch.no_grad(), intervened(model, found.steps):
        steered = model(tokens)
    block = model.blocks[2]
    handle = block.register_forward_hook(
        lambda module, given, output: (
            (output[0] + torch.from_numpy(vector), *output[1:])
            if isinstance(output, tuple)
            else output + torch.from_numpy(vector)
        )
    )
    with torch.no_grad():
        expected = model(tokens)
    handle.remove()
    assert (steered - expected).abs().max() < 1e-4
    assert found.steps[0].positions == (0, None)
    assert read_vector(path)[1] == "blocks.2.hook_resid_post"


@pytest.mark.parametrize(
    ("made_up", "says"),
    [(recipe(0), "block 0"), (recipe(action="set"), "set at"), (recipe(positions=(1, 3)), "every token"),
     (recipe(amount=0.0), "block 1 add nothing"), (recipe(amount=1e-50), "block 1 add nothing")],
)  # fmt: skip
def test_what_a_control_vector_cannot_say_is_refused(tmp_path, made_up, says):
    with pytest.raises(ConfigError, match=says):
        write_directions(made_up, tmp_path / "v.gguf")
    write_directions(made_up, tmp_path / "v.safetensors")
    assert read_directions(tmp_path / "v.safetensors").steps[0].action == made_up.steps[0].action


def test_files_of_others_and_damaged_ones(tmp_path):
    from safetensors.numpy import save_file

    save_file({"v": np.ones(D, np.float32)}, tmp_path / "v.safetensors")
    assert read_vector(tmp_path / "v.safetensors", POINT)[0].shape == (D,)
    with pytest.raises(ConfigError, match="add --at"):
        read_vector(tmp_path / "v.safetensors")
    with pytest.raises(CorruptError, match="no directions of the workbench"):
        read_directions(tmp_path / "v.safetensors")
    torch.save({"vector": torch.ones(D)}, tmp_path / "v.pt")
    assert read_vector(tmp_path / "v.pt", POINT)[0].shape == (D,)
    torch.save({"vector": ContrastPair(towards="a", away="b")}, tmp_path / "code.pt")
    with pytest.raises(CorruptError, match="tensors only"):
        read_vector(tmp_path / "code.pt", POINT)
    (tmp_path / "v.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(CorruptError, match=r"GGUF|control vector"):
        read_directions(tmp_path / "v.gguf")
    writer = gguf.GGUFWriter(tmp_path / "cut.gguf", "controlvector")
    writer.add_string("workbench.recipe", '{"steps": [')
    writer.add_tensor("direction.1", np.ones(D, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CorruptError, match="edited or cut short"):
        read_directions(tmp_path / "cut.gguf")
    with pytest.raises(MissingError):
        read_directions(tmp_path / "none.gguf")


def test_the_lines_of_transformers_do_the_same(tmp_path):
    """A tiny Llama of transformers, steered by the lines of the page and by our intervention."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=D, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, bos_token_id=0
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "model")
    own = recipe()
    write_directions(own, tmp_path / "v.safetensors")
    scope: dict = {}
    exec(transformers_code(own, str(tmp_path / "v.safetensors"), str(tmp_path / "model")), scope)
    tokens = torch.tensor([[0, 5, 9, 2]])
    with torch.no_grad():
        steered = scope["model"](tokens).logits
        kept: list = []
        handle = model.model.layers[1].register_forward_hook(lambda module, given, output: kept.append(1))
        plain = model(tokens).logits
        handle.remove()
    vector = torch.from_numpy(own.steps[0].target.vector).float() * 3.0

    def change(module, given, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, 1:] += vector
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    model.model.layers[1].register_forward_hook(change)
    with torch.no_grad():
        expected = model(tokens).logits
    assert (steered - expected).abs().max() < 1e-4
    assert (steered - plain).abs().max() > 1e-2
    assert len([line for line in transformers_code(own, "v", "m").splitlines() if line.strip()]) <= 12


def test_a_candidate_without_a_distance_is_refused(planted):
    sides = read_sides(planted, REPLIES, [POINT])
    with pytest.raises(ConfigError, match="same mean"):
        candidate(sides, POINT, lambda x, yes: np.eye(D)[3] * -1.0)
    with pytest.raises(ConfigError, match="no hook point"):
        choose_steering(planted, [], reply_questions(planted, REPLIES), neutral_text(planted, TEXT))
    assert Candidate(POINT, np.ones(D), 1.0).start == 0.0
