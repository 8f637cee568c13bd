"""The family of acts: each is described whole, is read from JSON and written back, and refuses what it cannot take."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
from act_bodies import Wrong, least_body, of_wrong_types, out_of_range, whole_body

import saes.acts
from interp.acts import Act, decode, is_streamed, typed
from interp.artifacts import as_json
from interp.errors import ConfigError, PromptError
from interp.interventions.conversation import RANDOM, STEERED, UNSTEERED, ChatTurn
from interp.interventions.intervention import Direction, Intervention, random_vector
from interp.interventions.recipe import Recipe
from interp.options import field_texts
from interp.workspace import Workspace
from saes.acts import catalogue
from saes.acts.features import JudgeSteering
from saes.acts.prompt import NextTokens
from saes.acts.run import Run
from saes.acts.writing import Say
from saes.features.recipes import LoadedRecipe

ActType = type[Act[Any, Any]]
each_act = pytest.mark.parametrize("act", catalogue().values(), ids=catalogue())


def test_every_class_of_the_folder_that_is_an_act_is_in_the_catalogue_under_its_name():
    """Read from the source, so that an act that a module hides from the catalogue is missed."""
    named = {}
    for path in Path(saes.acts.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and any(isinstance(part, ast.FunctionDef) and part.name == "measure"
                                                      for part in node.body):  # fmt: skip
                named[node.name] = path.stem
    assert named == {act.__name__: act.__module__.rpartition(".")[2] for act in catalogue().values()}
    assert all(act.verb == name for name, act in catalogue().items())


@each_act
def test_an_act_is_described_whole(act: ActType):
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", act.verb)
    assert act.__doc__, "its own, not an inherited one"
    assert act.about().splitlines()[0].endswith((".", ":"))
    schema = act.schema()
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == [each.name for each in fields(act)]
    for name, about in schema["properties"].items():
        assert about["description"] == field_texts(act)[name]
        assert re.fullmatch(r"\S.*\.", about["description"]), name
    needed = [each.name for each in fields(act) if each.default is MISSING and each.default_factory is MISSING]
    assert schema.get("required", []) == needed
    assert json.loads(json.dumps(schema)) == schema
    assert is_streamed(decode(act, least_body(schema))) == ("Iterator" in str(act.measure.__annotations__["return"]))


@each_act
def test_an_act_is_read_from_json_and_written_back(act: ActType):
    whole, least = whole_body(act.schema()), least_body(act.schema())
    asked = decode(act, whole)
    assert as_json(asked) == whole
    assert as_json(decode(act, json.loads(json.dumps(as_json(asked))))) == whole
    few = decode(act, least)
    for each in fields(act):
        if each.name not in least:
            assert getattr(few, each.name) == each.default != getattr(asked, each.name), "another than by default"


def faults(act: ActType) -> Iterator[Wrong]:
    """Yield bodies that are wrong in one place."""
    schema = act.schema()
    whole = whole_body(schema)
    yield from of_wrong_types(schema)
    yield from out_of_range(schema)
    yield Wrong("else", whole | {"else": 1})
    for name in schema.get("required", []):
        yield Wrong(name, {other: value for other, value in whole.items() if other != name})


@each_act
def test_what_an_act_cannot_take_is_refused_with_the_name_of_the_field(act: ActType):
    n = 0
    for path, body in faults(act):
        with pytest.raises(ConfigError) as caught:
            decode(act, body)
        said = str(caught.value)
        assert re.match(rf"{act.verb}: {re.escape(path)} (should|is|holds) ", said), (path, body.get(path), said)
        assert len(said) < 400
        assert said.isprintable()
        n += 1
    assert n >= 3 * len(fields(act))


def test_limits_of_every_form_are_tried():
    """The generator finds limits of numbers, texts, lists, and objects, also inside others."""
    limited = {f"{act.verb}.{path}" for act in catalogue().values() for path, _ in out_of_range(act.schema())}
    assert {
        "attention.layer", "next_tokens.after", "steer.strength", "steer.text", "documents.rows", "documents.rows.0",
        "change_latents.factors", "change_latents.factors.a", "continue_prompt.exchange.layer",
    } <= limited  # fmt: skip


def test_a_value_deeper_than_json_is_read_is_refused():
    deep: Any = "a"
    for _ in range(300):
        deep = [deep]
    for given in (deep, {"a": deep}):
        with pytest.raises(ConfigError, match="steer"):
            decode(catalogue()["steer"], {"features": "demo", "feature": 1, "text": given})


def test_the_texts_of_an_address_become_what_the_fields_take():
    given = {"text": "12", "model": "true", "chat": "1", "after": "3", "temperature": "0.5"}
    asked = decode(NextTokens, typed(NextTokens, given))
    assert asked == NextTokens(text="12", model="true", chat=True, after=3, temperature=0.5)
    judged = {"features": "1e3", "feature": "7", "text": "0", "strength": "-2", "chat": "False", "nulls": "quick"}
    expected = JudgeSteering(features="1e3", feature=7, text="0", strength=-2, chat=False, nulls="quick")
    assert decode(JudgeSteering, typed(JudgeSteering, judged)) == expected
    for wrong in ({"after": "three"}, {"temperature": "nan"}, {"chat": "maybe"}, {"after": "1" * 5000}):
        with pytest.raises(ConfigError, match=f"next_tokens: {next(iter(wrong))} should"):
            decode(NextTokens, typed(NextTokens, given | wrong))


HEAVY = """
import sys
from saes.acts import catalogue
for act in catalogue().values():
    act.schema(), act.about()
print(*({"torch", "transformers", "transformer_lens", "dash", "flask", "pandas"} & sys.modules.keys()))
"""


def test_the_catalogue_and_its_schemas_load_without_torch_and_without_the_dashboard():
    done = subprocess.run([sys.executable, "-c", HEAVY], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


@pytest.mark.real
def test_a_message_is_said_unsteered_steered_and_at_random_and_goes_on(smollm2, tmp_path, monkeypatch):
    """The second turn has each chat's own first reply; at strength 0 all chats with the same text go on alike."""
    target = Direction(hook_point="blocks.14.hook_resid_post", vector=random_vector(576, 1.0, [1]), origin="drawn")

    def steering(act: Say, run: Run) -> LoadedRecipe:
        step = Intervention(target=target, amount=40.0 * act.strength)
        return LoadedRecipe(Recipe(name="drawn", steps=(step,), model="smollm2-135m"), {})

    monkeypatch.setattr(Say, "_steering", steering)
    monkeypatch.setattr("interp.models.loading.load_model", lambda spec, **_: smollm2)
    run = Run(Workspace(tmp_path / "workspace", create=True))
    act = Say(direction="drawn", message="Name a fruit.", n_new=3)
    *said, last = act.measure(run)
    assert list(last.replies) == [UNSTEERED, STEERED, RANDOM]
    for at, (chat, reply) in enumerate(last.replies.items()):
        assert [step.said[at] for step in said if step.said[at]] == [token.text for token in reply.tokens], chat
    assert last.replies[UNSTEERED].shift == 0 < last.replies[STEERED].shift
    turn = ChatTurn(message=act.message, replies=dict.fromkeys(last.replies, "A plum."))
    more = replace(act, turns=(turn,), message="And another?", strength=0.0, temperature=1.0)
    *_, off = more.measure(run)
    assert len({reply.text for reply in off.replies.values()}) == 1, "the chats share their draws"
    assert max(abs(token.shift) for reply in off.replies.values() for token in reply.tokens) < 1e-4
    with pytest.raises(PromptError, match="message is empty"):
        list(replace(act, message=" ").measure(run))
