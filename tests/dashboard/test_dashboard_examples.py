"""Examples on the feature page: ranges of activation, amounts of text, scales, and tooltips with known values."""

import json

import numpy as np
import pytest
import torch
from make_features import write_features
from page_text import text_of

from dashboard.components.tokens import token_strip
from dashboard.data import features as view
from dashboard.feature._examples import READING, SNIPPET, listed
from dashboard.figures.saes import filled_bins
from interp.errors import MismatchError, MissingError
from interp.recording.record import record
from interp.recording.recorded import RecordConfig
from interp.recording.store import Recording
from interp.workspace import Workspace
from saes.acts.features import ReadDocuments, described_recording, document_text
from saes.acts.run import Run
from saes.features.schema import Features
from saes.features.sources import neurons_of


def shown(workspace, live, *, bins=None, name="demo", index=12, **reading):
    one = view.one(workspace, name, index)
    whole = filled_bins(one.row.histogram)
    parts = listed(one, bins or (whole.start, whole.stop), READING | reading, lambda: live)
    return json.loads(json.dumps(parts, default=lambda each: each.to_plotly_json()))


def marks(parts) -> list[dict]:
    found: list[dict] = []

    def walk(part):
        if isinstance(part, dict):
            if part.get("type") == "Mark":
                found.append(part["props"])
            part = list(part.values())
        if isinstance(part, list):
            for each in part:
                walk(each)

    walk(parts)
    return found


def test_a_range_holds_exactly_the_examples_of_its_activations(workspace):
    demo = workspace.open(Features, "demo")
    every = view.examples_between(demo, 12, 0, np.inf)[0]
    values = [each.activation for each in every]
    assert len(values) == 18
    assert values == sorted(values, reverse=True)
    low, high = values[9], values[3]
    found, n_stored = view.examples_between(demo, 12, low, high)
    assert [each.activation for each in found] == [value for value in values if low <= value < high]
    assert n_stored == 18
    assert values[0] not in [each.activation for each in view.examples_between(demo, 12, 0, values[0])[0]]
    last, _ = view.examples_between(demo, 12, values[3], values[3], last=True)
    assert [each.activation for each in last] == values[:4]


def test_a_context_of_two_groups_is_listed_once(tmp_path):
    workspace = Workspace(tmp_path / "w", create=True)
    text = {"document": 0, "position": 5, "document_id": "", "document_label": "", "tokens": ["a"], "token_ids": [1]}
    one = {"feature": 0, "rank": 0, "activation": 2.0, "row": 5, "activations": [2.0], "peak": 0, **text}
    rows = [{**one, "group": group, "group_order": i} for i, group in enumerate(("top", "q4"))]
    write_features(workspace, "twice", [{"feature": 0}], rows)
    found, n = view.examples_between(workspace.open(Features, "twice"), 0, 1, 3)
    assert [each.group for each in found] == ["top"]
    assert n == 1


def test_the_title_of_a_range_counts_its_tokens_and_its_examples(workspace, live):
    features, row = view.one(workspace, "demo", 12)
    whole = filled_bins(row.histogram)
    said = text_of(shown(workspace, live, bins=(whole.start, whole.start + 2)))
    assert f"{sum(row.histogram[whole.start : whole.start + 2]):,} tokens of the recording; 0 of the 18" in said
    top = next(i for i, edge in enumerate(features.histogram_edges) if edge > row.max_activation) - 1
    said = text_of(shown(workspace, live, bins=(top, top + 1)))
    expected = view.examples_between(features, 12, *features.histogram_edges[top : top + 2])[0]
    assert f"{len(expected)} of the 18 stored examples" in said
    assert expected


def test_a_snippet_has_five_tokens_on_each_side_of_the_peak(workspace, live):
    row = view.examples(workspace.open(Features, "demo"), 12)[0]
    parts = marks(shown(workspace, live, view="snippet"))
    peak = next(each for each in parts if "wb-peak" in each["className"])
    assert peak["data-tip"].endswith(f", position {row.position}, token {row.token_ids[12]}")
    positions = [int(each["data-tip"].split("position ")[1].split(",")[0]) for each in parts[:1]]
    assert row.position - SNIPPET <= positions[0] <= row.position + SNIPPET
    assert len(parts) < len(marks(shown(workspace, live)))


def test_scales_set_the_activation_of_full_colour(workspace, live):
    def peaks(scale):
        return [
            float(m["style"]["--a"]) for m in marks(shown(workspace, live, scale=scale)) if "wb-peak" in m["className"]
        ]

    assert set(peaks("example")) == {0.72}
    by_list = peaks("list")
    assert [by_list[0], by_list[6], by_list[9]] == [0.72] * 3  # the strongest of each group of 6, 3, 3
    assert by_list[1] < 0.72
    assert peaks("feature")[6] < 0.72


def test_full_text_comes_from_the_recording_or_says_why_not(workspace, live):
    parts = shown(workspace, live, view="document")
    assert "Full text of the first 6 of 18 examples" in text_of(parts)
    first = next(each for each in marks(parts) if "wb-peak" in each["className"])
    assert first["data-tip"] == "5, position 350, token 250"
    missing = text_of(shown(workspace, live, name="neurons", view="document"))
    assert "cannot be shown: no recording 'demo'" in missing
    assert "The stored windows" in missing


def test_the_tooltip_of_a_silent_token_is_found_by_its_length():
    strip = token_strip(["a", "🦜b", "c", "d"], [0, 0, 2.0, 0], maximum=2, peak=2, ids=[4, 5, 6, 7], first=30)
    made = json.loads(json.dumps(strip, default=lambda each: each.to_plotly_json()))["props"]
    runs = [child["props"] for child in made["children"]]
    assert made["data-ids"] == "4,5,6,7"
    assert made["data-first"] == "30"
    assert (runs[0]["data-at"], runs[0]["data-lengths"]) == ("0", "1,3")  # a parrot is two UTF-16 units
    assert runs[1]["data-tip"] == "2, position 32, token 6"
    assert runs[2]["data-at"] == "3"
    plain = token_strip(["a"], [0.0], maximum=1).to_plotly_json()["props"]
    assert "data-ids" not in plain


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, tiny_model, text_documents):
    """Return a workspace with a recording of the MLP of a small model, and the documents recorded."""
    workspace = Workspace(tmp_path_factory.mktemp("documents") / "w", create=True)
    folder = workspace.path("recording", "r")
    settings = RecordConfig(tokens=2000, context_length=32, batch_size=8)
    record(tiny_model, text_documents, folder, settings, hook_points=["blocks.0.mlp.hook_post"])
    return workspace, {each.id: each.text for each in text_documents}


def test_a_document_is_read_whole_with_the_activations_of_its_tokens(recorded, tiny_model):
    workspace, documents = recorded
    recording = Recording(workspace.path("recording", "r"))
    neurons = neurons_of(tiny_model, "blocks.0.mlp.hook_post")
    row = int(recording.document_rows(3)[50])
    found = document_text(tiny_model, neurons, recording, row, 5, 4096)
    assert "".join(found.tokens) == documents[recording.documents()[3].id]
    assert (found.first, found.peak, found.cut) == (0, 50, False)
    acts = recording.read_rows("blocks.0.mlp.hook_post", recording.document_rows(3))[:, 5]
    assert found.activations == torch.relu(acts).tolist()
    cut = document_text(tiny_model, neurons, recording, row, 5, 20)
    assert (cut.first, cut.peak, cut.cut, len(cut.tokens)) == (40, 10, True, 20)
    assert cut.activations == found.activations[40:60]
    assert cut.tokens == found.tokens[40:60]


def test_a_recording_made_again_is_refused(recorded):
    workspace, _ = recorded
    for name, parents in (("same", {"recordings/r": workspace.manifest("recording", "r").content_hash}),
                          ("other", {"recordings/r": "0" * 64})):  # fmt: skip
        about = {"recording": "r", "model": "small:mlp-2l", "hook_point": "blocks.0.mlp.hook_post"}
        write_features(workspace, name, [], parents=parents, **about)
    run = Run(workspace)
    assert described_recording(run, "same").folder == workspace.path("recording", "r")
    assert ReadDocuments(features="same", feature=5, rows=(0,)).spec(run) == "small:mlp-2l"
    with pytest.raises(MismatchError, match="--name other --overwrite"):
        described_recording(run, "other")
    write_features(workspace, "lost", [], recording="gone")
    with pytest.raises(MissingError, match="gone"):
        described_recording(run, "lost")
