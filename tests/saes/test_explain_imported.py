"""Labels of Neuronpedia's exports: their formats, the source and the scores given there, and files that are refused."""

import gzip
import json
from pathlib import Path

import pytest
from make_features import write_features

from interp.artifacts import save_artefact
from interp.errors import ConfigError, CorruptError, MissingError, WorkbenchError
from interp.workspace import Workspace
from saes.explain.imported import read_labels
from saes.features.schema import Features
from saes.features.written_labels import FeatureLabel, Labels
from workbench.verbs.explain import Explain


def entry(index, description="dates", **more):
    given = {"modelId": "gpt2-small", "layer": "6-res-jb", "index": str(index), "description": description,
             "explanationModelName": "gpt-4o-mini", "typeName": "oai_token-act-pair"}  # fmt: skip
    return given | more


def score(value, kind="eleuther_recall", model="claude"):
    return {"value": value, "explanationScoreTypeName": kind, "explanationScoreModelName": model, "jsonDetails": "[]"}


ENTRIES = [
    entry(2, "months <b>of</b>\n the year"),
    entry(0, "first", scores=[score(0.6)]),
    entry(0, "better", explanationModelName="gpt-4o", scores=[score(0.9), score(0.7, "eleuther_fuzz")]),
    entry(0, "third"),
]


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    workspace = Workspace(tmp_path / "w", create=True)
    rows = [{"feature": i, "n_fired": 5, "label": f"own {i}"} for i in range(4)]
    write_features(workspace, "f", rows, dictionary="sae:s", hook_point="blocks.6.hook_resid_pre", model="gpt2")
    return workspace


def written(workspace: Workspace, path: Path) -> list[FeatureLabel]:
    found = read_labels(workspace.open(Features, "f"), path)
    return save_artefact(found, workspace.path("labels", "n"), overwrite=True).labels.rows()


def forms(tmp_path: Path) -> dict[str, bytes]:
    lines = "\n".join(json.dumps(each, ensure_ascii=False) for each in ENTRIES).encode()
    return {
        "list.json": json.dumps(ENTRIES).encode(),
        "lines.jsonl": lines + b"\n\n",
        "lines.jsonl.gz": gzip.compress(lines),
    }


@pytest.mark.parametrize("name", ["list.json", "lines.jsonl", "lines.jsonl.gz"])
def test_each_format_gives_the_same_labels(workspace, tmp_path, name):
    (tmp_path / name).write_bytes(forms(tmp_path)[name])
    rows = written(workspace, tmp_path / name)
    assert [(row.feature, row.label) for row in rows] == [(0, "better"), (2, "months <b>of</b> the year")]
    assert rows[0].label_source == "neuronpedia: gpt-4o, oai_token-act-pair"
    assert rows[0].given_names == ["eleuther_recall by claude", "eleuther_fuzz by claude"]
    assert rows[0].given_scores == [0.9, 0.7]
    assert rows[1].given_scores == []
    assert rows[0].statistics_label == "own 0"
    made = workspace.open(Labels, "n")
    assert (made.n_read, made.n_labelled, made.n_scored) == (4, 2, 1)
    assert made.label_source == "neuronpedia gpt2-small/6-res-jb"
    assert made.settings.features_hash == workspace.manifest("features", "f").content_hash
    assert len(made.scores) == len(made.trials) == 0, "the scores given are not ours"


def test_a_single_explanation_and_separators_within_texts(workspace, tmp_path):
    path = tmp_path / "e.json"
    path.write_text(json.dumps(entry(1)))
    assert [row.feature for row in written(workspace, path)] == [1]
    path.write_text("\n".join(json.dumps(entry(i, "a\u2028b\x85c"), ensure_ascii=False) for i in (1, 3)))
    assert [row.label for row in written(workspace, path)] == ["a b c"] * 2


BAD = {
    "empty": (b"", ConfigError, "no explanation"),
    "truncated line": (
        b'{"index": "1", "description": "x"}\n{"index": "2", "desc',
        CorruptError,
        "line 2 is not valid",
    ),
    "binary": (b"\xff\xfe\x00\x01", CorruptError, "not UTF-8"),
    "damaged gzip": (b"\x1f\x8b" + b"x" * 50, CorruptError, "cannot be unpacked"),
    "numbers": (b"[1, 2]", CorruptError, "entry 0: should be an object"),
    "no index": (b'[{"description": "x"}]', CorruptError, "index is missing"),
    "negative": (b'[{"index": "-1", "description": "x"}]', CorruptError, "index should be the number"),
    "score": (
        b'[{"index": 1, "description": "x", "scores": [{"value": NaN}]}]',
        CorruptError,
        "scores.0.value should be a finite",
    ),
    "deep": (b"[" * 100_000, WorkbenchError, "nested too deeply|not valid JSON"),
    "beyond": (json.dumps([entry(4)]).encode(), ConfigError, "beyond the 4 features"),
    "layer": (json.dumps([entry(1, layer="7-res-jb")]).encode(), ConfigError, "of layer 7 .*layer 6"),
    "two": (json.dumps([entry(1), entry(2, modelId="gemma")]).encode(), ConfigError, "several dictionaries"),
    "none": (b"[]", ConfigError, "no explanation"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_refused_leave_nothing_behind(workspace, tmp_path, name):
    text, kind, why = BAD[name]
    (tmp_path / "bad").write_bytes(text)
    with pytest.raises(kind, match=why) as caught:
        written(workspace, tmp_path / "bad")
    assert "\n" not in str(caught.value)
    assert workspace.names("labels") == []


def test_the_verb_imports_adopts_and_refuses(workspace, tmp_path, capsys):
    path = tmp_path / "e.jsonl"
    path.write_bytes(forms(tmp_path)["lines.jsonl"])
    Explain(source="f", neuronpedia=path, into="named", workspace=workspace.root).run()
    assert "2 labels of neuronpedia gpt2-small/6-res-jb, chosen of 4 explanations; 1 with a score" in " ".join(
        capsys.readouterr().out.split()
    )
    labels = workspace.query(
        "select label from f order by feature", f=workspace.table_path("features", "named", "features")
    )
    assert labels["label"].to_pylist() == ["better", "own 1", "months <b>of</b> the year", "own 3"]
    with pytest.raises(MissingError, match="no file"):
        Explain(source="f", neuronpedia=tmp_path / "gone", name="other", workspace=workspace.root).run()
