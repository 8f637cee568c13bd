"""The verbs, end to end, on a workspace in a bucket: every artefact has the content hash of the one in a folder."""

import json
import sys
from pathlib import Path

import pytest
import torch

from interp.artifacts import verify
from interp.workspace import Workspace
from workbench.__main__ import main

sys.path.append(str(Path(__file__).parents[1] / "fixtures"))
from s3_server import BUCKET, new_machine, running

MODEL, HOOK, MLP = "small:mlp-2l", "blocks.1.hook_resid_post", "blocks.1.mlp.hook_post"
SIZES = ["--d-sae", "40", "--k", "4", "--tokens", "3000", "--batch-size", "256"]
QUICK = ["--draws", "9", "--examples", "2", "--others", "4", "--new-tokens", "2"]
CONTEXT = ["--context-length", "32"]
VERBS = [
    ["record", MODEL, "--name", "r", "--hook-points", HOOK, MLP, "--tokens", "5000", *CONTEXT],
    [
        *("record", MODEL, "--name", "live", "--live", "--hook-points", "mlps"),
        *("--tokens", "5000", "--context-length", "32"),
    ],
    ["train", "r", "--name", "one", "--hook-point", HOOK, *SIZES],
    ["train", "r", "--name", "two", "--hook-point", HOOK, "--seed", "1", *SIZES],
    ["train", "live", "--set", "set", *SIZES],
    ["features", "one"],
    ["features", "--set", "set"],
    ["search", "fox"],
    ["evaluate", "one", "--contexts", "8"],
    ["compare", "saes", "one", "two", "--match"],
    ["atlas", "sae:one", "--n-neighbors", "5"],
    ["heads", MODEL],
    ["prove", "one", "--feature", "FEATURE", *QUICK],
    ["trace", MODEL, "--prompt", "a quick fox and", "--set", "set"],
    ["verify"],
]


def run_all(workspace: str, corpus: Path) -> None:
    for words in VERBS:
        given = [*words, *(["--corpus", str(corpus)] if words[0] == "record" else [])]
        if "FEATURE" in given:
            found = Workspace(workspace)
            path = found.table_path("features", "one", "features")
            best = found.query("select feature from f order by n_fired desc, feature limit 1", f=path)
            given[given.index("FEATURE")] = str(best["feature"][0].as_py())
        threads = [] if words[0] in ("verify", "search") else ["--threads", "1"]
        assert main([*given, *threads, "--workspace", workspace]) == 0, given


@pytest.mark.slow
def test_every_verb_makes_the_same_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    pages = [f"page {i}: a quick fox and {i * 7 % 13} lazy dogs sleep near {i * 5 % 11} hens" for i in range(200)]
    corpus = tmp_path / "text.jsonl"
    corpus.write_text("\n".join(json.dumps({"text": page}) for page in pages))
    run_all(str(tmp_path / "folder"), corpus)
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    with running():
        run_all(BUCKET, corpus)
        new_machine(tmp_path / "other")
        here, there = Workspace(tmp_path / "folder"), Workspace(BUCKET)
        assert there.partials() == []
        hashes = [{each.key(m): m.content_hash for m in each.artifacts()} for each in (here, there)]
        assert hashes[0] == hashes[1]
        assert len(hashes[0]) == 14
        for each in there.artifacts():
            assert verify(there.path(each.kind, each.name)) == []
            assert each.parents == here.manifest(each.kind, each.name).parents
    torch.set_num_threads(before)
