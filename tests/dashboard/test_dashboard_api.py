"""The read API: every read answers, refuses what it cannot take, and is described truly."""

import inspect
import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch

from dashboard import api
from dashboard.answers import plain
from dashboard.app import create_app
from interp.acts import Compared
from interp.errors import UnknownNameError, UsageError
from saes.acts import catalogue
from saes.kinds.base import SAEMetadata

GOOD = {
    "kinds": {},
    "artefact": {"key": "heads/smollm2-135m"},
    "artefacts": {"kind": "sae"},
    "search": {"query": "prose", "limit": "5"},
    "features": {"features": "demo", "sort": "density", "descending": "true", "limit": "3"},
    "feature": {"features": "demo", "index": "3"},
    "examples": {"features": "demo", "index": "3"},
    "uses": {"features": "demo", "index": "3"},
    "sae_dashboard": {"features": "demo", "index": "3"},
    "regions": {"atlas": "demo-features"},
    "heads": {"name": "smollm2-135m", "kind": "name_mover", "limit": "2"},
    "head": {"name": "smollm2-135m", "head": "L0H1"},
    "circuit": {"name": "ioi"},
    "compare": {"a": "demo:3", "b": "demo:6"},
}


@pytest.fixture
def client(server):
    server.testing = True
    return server.test_client()


def ask(client, path: str, **query: str):
    reply = client.get(path, query_string=query, headers={"Host": "127.0.0.1"})
    return reply.status_code, json.loads(reply.data)


@pytest.mark.parametrize("name", GOOD)
def test_every_read_answers_in_json(client, name):
    status, found = ask(client, f"/api/{name}", **GOOD[name])
    assert status == 200, found
    assert found


def test_every_read_is_tried_here():
    assert set(GOOD) | {"vector"} == set(api.READS)  # the synthetic dictionary has no weights


def test_a_slice_is_sorted_and_counted(client):
    _, found = ask(client, "/api/features", **GOOD["features"])
    densities = [row["density"] for row in found["rows"]]
    assert found["total"] == 240
    assert densities == sorted(densities, reverse=True)
    assert len(densities) == 3


def test_a_feature_comes_with_its_nulls(client):
    _, found = ask(client, "/api/feature", **GOOD["feature"])
    assert {"promoted_p", "coactive_expected"} <= found["relations"].keys()
    assert found["relations"]["scales"]["neuron_null"] == 0.19


def test_the_export_has_the_fields_that_saedashboard_reads(client):
    """Its `NeuronpediaDashboardBatch(**batch)` takes these keyword arguments, and no others."""
    _, batch = ask(client, "/api/sae_dashboard", **GOOD["sae_dashboard"])
    assert set(batch) == {"model_id", "layer", "sae_set", "features"}
    [feature] = batch["features"]
    assert set(feature) == {
        *("feature_index", "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1"),
        *("correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson"),
        *("correlated_features_indices", "correlated_features_l1", "correlated_features_pearson"),
        *("neg_str", "neg_values", "pos_str", "pos_values", "frac_nonzero", "dataset", "decoder_weights_dist"),
        *("freq_hist_data_bar_values", "freq_hist_data_bar_heights", "activations"),
        *("logits_hist_data_bar_heights", "logits_hist_data_bar_values", "n_prompts_total", "n_tokens_in_prompt"),
    }
    assert len(feature["freq_hist_data_bar_values"]) == len(feature["freq_hist_data_bar_heights"])
    assert len(feature["logits_hist_data_bar_values"]) == len(feature["logits_hist_data_bar_heights"]) > 0
    for each in feature["activations"]:
        assert set(each) == {"bin_min", "bin_max", "bin_contains", "tokens", "values"}
        assert len(each["tokens"]) == len(each["values"])
        assert each["bin_max"] >= max(each["values"]) - 1e-6


@pytest.mark.parametrize(
    ("path", "query", "status", "words"),
    [
        ("/api/featur", {}, 404, "feature"),
        ("/api/feature", {"features": "demp", "index": "1"}, 404, "demo"),
        ("/api/feature", {"features": "demo"}, 400, "index"),
        ("/api/feature", {"features": "demo", "index": "one"}, 400, "integer"),
        ("/api/feature", {"features": "demo", "index": "99999"}, 400, "0 to 239"),
        ("/api/feature", {"features": "../demo", "index": "1"}, 400, "not a usable name"),
        ("/api/features", {"features": "demo", "limit": "100000"}, 400, "limit should be less than or equal to 200"),
        ("/api/features", {"features": "demo", "density_low": "nan"}, 400, "finite"),
        ("/api/features", {"features": "demo", "offset": "1" + 20 * "0"}, 400, "offset should be less than"),
        ("/api/feature", {"features": "demo", "index": "1" + 60 * "0"}, 400, "index should be less than"),
        ("/api/features", {"features": "demo", "sort": "label; drop"}, 404, "column"),
        ("/api/features", {"features": "demo", "colour": "red"}, 400, "colour is not a field"),
        ("/api/artefacts", {"kind": "pickle"}, 404, "kind"),
        ("/api/search", {"query": " "}, 400, "query"),
    ],
)
def test_what_cannot_be_answered_says_why(client, path, query, status, words):
    found_status, found = ask(client, path, **query)
    assert found_status == status, found
    assert words in found["error"]


def test_the_description_names_every_read_and_parameter(client):
    status, found = ask(client, "/api/openapi.json")
    assert status == 200
    acts = {f"/api/act/{name}" for name in catalogue()}
    priced = {f"/api/price/{name}" for name, act in catalogue().items() if issubclass(act, Compared)}
    assert len(priced) >= 4
    assert set(found["paths"]) == {f"/api/{name}" for name in api.READS} | acts | priced
    for name, read in api.READS.items():
        about = found["paths"][f"/api/{name}"]["get"]
        _, *taken = inspect.signature(read).parameters.values()
        assert {each["name"]: each["required"] for each in about["parameters"]} == {
            each.name: each.default is each.empty for each in taken
        }
        assert about["summary"].endswith((".", ":"))
    for name, act in catalogue().items():
        about = found["paths"][f"/api/act/{name}"]["post"]
        schema = about["requestBody"]["content"]["application/json"]["schema"]
        assert set(schema["properties"]) == {"visitor", *(each.name for each in fields(act))}
        assert about["summary"].endswith((".", ":"))


def references(schema: Any) -> Iterator[str]:
    """Yield every reference inside a schema."""
    if isinstance(schema, dict):
        yield from [schema["$ref"]] if "$ref" in schema else []
        schema = list(schema.values())
    for part in schema if isinstance(schema, list) else []:
        yield from references(part)


def test_every_reference_of_the_description_leads_somewhere(client):
    """In OpenAPI a reference starts at the root of the description, not at the schema that contains it."""
    _, found = ask(client, "/api/openapi.json")
    missing = set()
    for reference in references(found):
        there = found
        for key in reference.removeprefix("#/").split("/"):
            there = there.get(key, {})
        missing |= set() if there else {reference}
    assert missing == set()


def test_values_that_json_lacks_become_null():
    assert plain({"a": [float("nan"), float("inf"), 1.5], 2: (1, True, None)}) == {
        "a": [None, None, 1.5],
        "2": [1, True, None],
    }


def test_typed_values_of_an_agent_are_checked_as_text_is(workspace):
    assert api.call(workspace, "features", {"features": "demo", "limit": 2, "descending": True})["total"] == 240
    with pytest.raises(UsageError, match="integer"):
        api.call(workspace, "features", {"features": "demo", "limit": True})
    with pytest.raises(UnknownNameError):
        api.call(workspace, "delete", {})


def test_a_vector_is_the_row_of_the_sae_that_the_features_describe(client, workspace, monkeypatch):
    asked = {"features": "demo", "index": 3}
    monkeypatch.setattr("saes.weights.folder.load_direction", lambda folder, latent: (about, torch.eye(5)[latent]))
    about = SAEMetadata(hook_point="blocks.9.hook_resid_post")
    status, found = ask(client, "/api/vector", **asked)
    assert (status, found["direction"], found["hook_point"]) == (200, [0, 0, 0, 1, 0], "blocks.9.hook_resid_post")
    assert ask(client, "/api/feature", **asked)[1]["outdated"] == ""


def test_tables_of_an_sae_that_was_made_again_give_no_vector_of_it(remade):
    status, found = ask(create_app(remade).server.test_client(), "/api/vector", features="demo", index=3)
    assert status == 409
    assert "workbench features demo --overwrite" in found["error"]
    assert "was made again" in api.call(remade, "feature", {"features": "demo", "index": 3})["outdated"]


def test_every_act_of_an_agent_answers_with_its_control(live):
    on_feature = {"features": "demo", "feature": 3}
    on_prompt = {"text": "to July", "model": "smollm2-135m"}
    on_graph = {"graph": "capital", "factors": {"feature:0:1:3": 0.0}}
    pair = {"clean": "to July", "corrupt": "to June", "model": "smollm2-135m", "answer": "a"}
    asked: dict[str, dict[str, Any]] = {
        "read_prompt": on_prompt | {"features": "demo"}, "read_layers": on_prompt | {"start": 0, "stop": 2},
        "next_tokens": on_prompt, "activations": on_prompt | on_feature,
        "attention": on_prompt | {"layer": 0, "head": 1}, "attribute": on_prompt,
        "attribute_to_features": on_prompt | {"features": "demo"},
        "explain_attention": on_prompt | {"layer": 0, "head": 1, "query": 1, "key": 0},
        "continue_prompt": on_prompt | on_feature | {"n_new": 2},
        "say": {"direction": "praise", "message": "Hello"}, "suggest_pair": on_prompt, "patch": pair,
        "read_text": on_feature | {"text": "to July"}, "steer": on_feature | {"text": "to July"}, "ablate": on_feature,
        "run_monitor": {"monitor": "praise", "text": "to July"},
        "ablate_head": {"heads": "smollm2-135m", "head": "L0H1"},
        "judge_steering": on_feature | {"text": "to July"}, "separate_lists": on_feature,
        "documents": on_feature | {"rows": [0, 1]}, "change_latents": on_graph, "continue_graph": on_graph,
        "split_edge": {"graph": "capital", "source": "a", "target": "b"},
        "head_loadings": {"graph": "capital"},
        "why": on_prompt, "route": on_prompt | {"source": 1, "destination": 2},
        "swap_route": on_prompt | {"source": 1, "destination": 2, "instead": "Italy"},
        "explain_head": {"graph": "capital", "layer": 1, "head": 0, "query": 2, "key": 1},
    }  # fmt: skip
    assert set(asked) == {name for name, act in catalogue().items() if act.offered}
    found = {name: api.ask(live, name, given) for name, given in asked.items()}
    json.dumps(found, allow_nan=False)
    assert found["read_prompt"]["random_active"]
    assert found["read_layers"]["top_elsewhere"]
    assert found["next_tokens"]["uniform"] > found["next_tokens"]["entropy"]
    assert len(found["continue_prompt"][0]["tokens"]) == 3
    assert all({"null_low", "null_high"} <= row.keys() for row in found["patch"]["patches"])
    assert found["read_text"]["alike"]
    assert found["ablate"][0]["random"]
    assert found["ablate"][0]["alike"]
    assert len(found["ablate_head"]["compared"]["draws"]["random heads"]) == 19
    assert any("random" in row["name"] for row in found["steer"])
    assert found["judge_steering"]["raised"]["draws"]["random directions"]
    assert "39 of 39 random directions" in found["judge_steering"]["headline"]
    assert found["separate_lists"]["n_random"] == 1999
    assert all("p" in row for row in found["separate_lists"]["lists"])
    assert found["change_latents"]["random_low"] < found["change_latents"]["random_high"]
    assert found["continue_graph"]["random"]
    assert found["why"][-1]["enough"]["null"]
    assert found["route"]["carried"]["null"]
    assert found["swap_route"]["null"]
    with pytest.raises(UnknownNameError, match="steer"):
        api.ask(live, "stear", on_feature)
