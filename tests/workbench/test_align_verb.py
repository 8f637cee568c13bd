"""`workbench align` from the command line."""

import json

from interp.circuits.alignment import Alignment
from interp.workspace import Workspace


def test_a_file_of_pairs_is_aligned_and_a_bad_site_is_refused(cli, tmp_path):
    file, prompts = tmp_path / "copy.jsonl", [f"{key} {value} 3 9 {key}" for key in (1, 2, 4) for value in (5, 6, 7, 8)]
    pairs = [
        {"base": base, "source": source, "answer": base.split()[1], "wanted": source.split()[1]}
        for base in prompts
        for source in prompts
        if base != source
    ]
    file.write_text("\n".join(map(json.dumps, pairs)))
    words = ("align", "planted:induction", "--program", file, "--ranks", 4, "--epochs", 20, "--layer-step", 1)
    assert "carry answer (copy)" in cli(tmp_path, *words, "--site", "0:1", "--name", "mine")
    found = Workspace(tmp_path).open(Alignment, "mine")
    assert found.file is not None
    weights = {"model:planted:induction": found.settings.weight_hash}
    assert found.about.parents == weights | {"text:copy.jsonl": found.file.sha256}
    cli(tmp_path, "claim", "alignments/mine", "--number", "subspace", "--out", tmp_path / "claim.json")
    claim = json.loads((tmp_path / "claim.json").read_text())
    assert (claim["settings"]["program"], claim["texts"]) == ("copy.jsonl", {"copy.jsonl": file.read_text()})
    assert (found.settings.program, found.settings.site_given, len(found.pairs)) == ("copy", True, 33)
    assert "such as 12:3" in cli(tmp_path, *words, "--site", "twelve", code=2)
    assert "did you mean" in cli(tmp_path, "align", "planted:induction", "--program", "agreemnt", code=2)
