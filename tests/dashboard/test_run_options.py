"""Options of a run from the page: each verb has a form, the terminal reads it back, and what is hostile is refused."""

import json
import re
import shlex
from typing import Any

import pytest
from make_workspace import planted

from dashboard.queue import RunQueue
from interp.errors import WorkbenchError
from workbench.__main__ import parse
from workbench.commands import KNOWN_MODELS, Commands
from workbench.verbs import ANALYSES

MODEL = "small:attn-only-1l"
PAIRS = json.dumps([{"prompt": f"Dish {n} was", "towards": " good", "away": " bad"} for n in range(8)])


@pytest.mark.parametrize("verb", [" ".join(verb.typed_words()) for verb in ANALYSES])
def test_the_form_of_a_verb_has_its_fields_with_help_and_withholds_paths(place, verb):
    form = Commands(place).forms[verb]
    assert form.about
    assert all(field.help for field in form.fields if field.name != "model"), [
        f.name for f in form.fields if not f.help
    ]
    names = [field.name for field in form.fields]
    assert "name" in names
    assert not {"workspace", "labels", "vector"} & set(names)
    assert [field.advanced for field in form.fields] == sorted(field.advanced for field in form.fields)


CASES = [
    ("heads", {"model": MODEL, "n_prompts": "4", "seeds": "0 7", "name": "a.b-c"}),
    ("record", {"model": MODEL, "hook_points": ["blocks.0.hook_resid_post", "hook_embed"], "live": True}),
    ("train", {"recording": "rec", "d_sae": ["64", 128], "k": "4 8", "skip": False, "kind": "topk", "lr": "1e-3"}),
    ("atlas", {"source": "sae:dict", "then": ["sae:dict"], "cells": "dict", "n_neighbors": 5}),
    ("features", {"dictionary": "neurons:blocks.0.mlp.hook_post", "recording": "rec"}),
    (
        "patch",
        {"model": MODEL, "clean": "--clean=x", "corrupt": "a 'b' \"c\"", "answer": " Paris", "by_position": False},
    ),
    ("patch", {"model": MODEL, "task": "ioi", "by_position": True}),
    ("circuit find", {"model": MODEL, "fractions": [0.1, "0.5"], "untrained": False, "metric": "kl"}),
    (
        "direction",
        {"model": MODEL, "towards": "good 'very good' fine nice", "away": ["bad", "awful", "x", "y"]},
    ),
    ("direction", {"model": MODEL, "feature": "dict:12", "interventions": False}),
    ("direction", {"model": MODEL, "pairs": PAIRS}),
    ("evaluate", {"sae": "dict", "probing": True, "device": "cpu", "threads": 1}),
    ("lens", {"model": MODEL, "layers": [0, 1]}),
    ("trace", {"model": MODEL, "prompt": "The capital of France is", "target": " Rome", "contrast": " Paris"}),
]


@pytest.mark.parametrize(("verb", "options"), CASES)
def test_the_terminal_reads_back_what_was_entered(place, verb, options):
    planted(place, "recording", "rec", hook_points=["blocks.0.hook_resid_post"], model=MODEL)
    planted(place, "sae", "dict", recording="rec")
    commands = Commands(place)
    read: Any = parse(commands.arguments(verb, options))
    assert read.workspace == place.root.resolve()
    for name, value in commands.checked(verb, options).items():
        assert getattr(read, name) == value
    assert parse(shlex.split(commands.command(verb, options).split(" ", 1)[1]))


HOSTILE = [
    ("heads", {"model": "/etc/passwd"}, "unknown model"),
    ("heads", {"model": "--workspace=/tmp"}, "may not begin with '-'"),
    ("heads", {"model": MODEL, "workspace": "/tmp"}, "unknown option"),
    ("heads", {"model": MODEL, "name": "../../x"}, "not a usable name"),
    ("heads", {"model": MODEL, "n_prompts": "4; rm -rf /"}, "whole number"),
    ("heads", {"model": MODEL, "n_prompts": 2.5}, "whole number"),
    ("heads", {"model": MODEL, "n_prompts": True}, "whole number"),
    ("heads", {"model": MODEL, "device": "cuda --workspace /"}, "is not a device"),
    ("heads", {"model": MODEL, "overwrite": "yes"}, "yes or no"),
    ("heads", {"model": ["a"]}, "one line of text"),
    ("heads", {}, "Choose a known name"),
    ("heads", [], "options are names"),
    ("record", {"model": MODEL, "corpus": "/etc/passwd"}, "inside the workspace"),
    ("record", {"model": MODEL, "corpus": "../secret.txt"}, "inside the workspace"),
    ("record", {"model": MODEL, "corpus": "link.txt"}, "inside the workspace"),
    ("record", {"model": MODEL, "corpus": "hub:owner/name"}, "inside the workspace"),
    ("record", {"model": MODEL, "hook_points": ["--workspace", "/tmp"]}, "may not begin with '-'"),
    ("record", {"model": MODEL, "hook_points": ["a b"]}, "is not a hook point"),
    ("record", {"model": MODEL, "dtype": "float8"}, "unknown value"),
    ("train", {"recording": "nothing"}, "unknown recording"),
    ("train", {"recording": "../x"}, "not a usable name"),
    ("train", {"recording": "rec", "clip_norm": 2}, "unknown option"),
    ("train", {"recording": "rec", "k": [1] * 500}, "at most 200 values"),
    ("train", {"recording": "rec", "lr": "inf"}, "takes a finite number"),
    ("atlas", {"source": "file:/etc/passwd"}, "inside the workspace"),
    ("atlas", {"source": "sae:nothing"}, "unknown sae"),
    ("atlas", {"source": "shell:ls"}, "unknown atlas source"),
    ("circuit find", {"model": MODEL, "task": "/etc/tasks.csv"}, "inside the workspace"),
    ("direction", {"model": MODEL, "towards": "'open"}, "close the quotes"),
    ("direction", {"model": MODEL, "vector": "/etc/x.npy"}, "unknown option"),
    ("direction", {"model": MODEL, "pairs": json.dumps(json.loads(PAIRS)[1:])}, "a direction needs 8"),
    ("direction", {"model": MODEL, "pairs": "/etc/x.jsonl"}, "inside the workspace"),
    ("direction", {"model": MODEL, "pairs": "[" + "x" * 100_000}, "a command at most 100,000"),
    ("patch", {"model": MODEL, "clean": "a\nb", "corrupt": "b", "answer": "c"}, "one line of text"),
    ("patch", {"model": MODEL, "clean": "a\0b", "corrupt": "b", "answer": "c"}, "one line of text"),
    ("patch", {"model": MODEL, "clean": "x" * 5000, "corrupt": "b", "answer": "c"}, "at most 4,000"),
    ("patch", {"model": MODEL, "clean": "a"}, "lacks --corrupt, --answer"),
    ("demo", {}, "unknown verb that runs from the page"),
    ("explain", {"source": "demo", "endpoint": "http://elsewhere/v1"}, "unknown option of explain"),
    ("import", {"path": "/etc"}, "unknown verb that runs from the page"),
    ("serve", {}, "unknown verb that runs from the page"),
    ("heads; ls", {}, "unknown verb that runs from the page"),
]


@pytest.mark.parametrize(("verb", "options", "message"), HOSTILE)
def test_what_a_verb_does_not_take_is_refused_before_anything_runs(place, tmp_path, verb, options, message):
    planted(place, "recording", "rec")
    (tmp_path / "secret.txt").write_text("secret")
    (place.root / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(WorkbenchError, match=re.escape(message)):
        Commands(place).arguments(verb, options)
    queue = RunQueue(place, Commands(place)).start()
    with pytest.raises(WorkbenchError, match=re.escape(message)):
        queue.add(verb, options)
    assert queue.all() == []
    queue.stop()


def test_files_of_the_workspace_are_offered_and_taken(place):
    (place.root / "texts").mkdir()
    (place.root / "texts" / "mine.txt").write_text("some text")
    commands = Commands(place)
    assert commands.suggestions("corpus") == ["docstrings", "texts/mine.txt"]
    words = commands.arguments("record", {"model": MODEL, "corpus": "texts/mine.txt"})
    assert str((place.root / "texts" / "mine.txt").resolve()) in words


def test_models_on_offer_are_those_that_load_by_name_and_those_of_the_workspace(place):
    from interp.models.loading import known_models

    assert list(KNOWN_MODELS) == [model.name for model in known_models()]
    planted(place, "heads", "own", model="/somewhere/my-model")
    assert Commands(place).suggestions("model")[0] == "/somewhere/my-model"
    assert Commands(place).arguments("heads", {"model": "/somewhere/my-model"})
