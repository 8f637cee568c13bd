"""`workbench claim` and `workbench check`: a planted claim, one that fails, and files that say too much."""

import json

import pytest

from interp.artifacts import partial_path, write_json
from interp.claims import Claim, ClaimFile, VariationResult, verdict_of
from interp.forms import from_json
from interp.workspace import Workspace
from workbench.verbs import claim as verb

CHECK = ("check", "--threads", 1)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A workspace with the induction circuit of a planted model, and its claim."""
    from workbench.__main__ import main

    root = tmp_path_factory.mktemp("claims")
    at = ["--workspace", str(root)]
    assert main(["circuit", "induction", "planted:induction", "--prompts-per-seed", "4", *at]) == 0
    key = "induction-circuits/induction-planted-induction"
    assert main(["claim", key, "--seeds", "1", "--out", str(root / "claim.json"), *at]) == 0
    return root


def edited(root, path, **changes):
    document = json.loads((root / "claim.json").read_text()) | changes
    write_json(path, document)
    return path


def test_a_planted_claim_is_supported_in_every_variation_and_gives_the_same_bits(cli, planted, tmp_path):
    claim = from_json(ClaimFile, json.loads((planted / "claim.json").read_text()), "claim.json")
    assert (claim.subject, claim.analysis, claim.number) == ("circuit", "circuit induction", "path")
    assert claim.variations == ({}, {"seeds": [3, 4, 5]})
    out = cli(planted, *CHECK, planted / "claim.json", "--name", "mine", "--out", tmp_path / "measured.json")
    assert "Supported: it holds in 2 of 2 variations" in out
    made = Workspace(planted).open(Claim, "mine")
    assert (made.outcome, made.changed_inputs) == ("supported", ())
    assert made.about.parents == claim.inputs
    assert all(row.value > row.null for row in made.variations)
    again = cli(planted, *CHECK, tmp_path / "measured.json", "--name", "again")
    assert "the same bits as in the file in 2 variations" in again


def test_a_claim_about_a_model_without_the_circuit_is_not_supported(cli, planted, tmp_path):
    settings = json.loads((planted / "claim.json").read_text())["settings"] | {"model": "planted:copying"}
    out = cli(planted, *CHECK, edited(planted, tmp_path / "other.json", settings=settings), "--name", "copying")
    assert "Not supported: it holds in 0 of 2 variations" in out
    made = Workspace(planted).open(Claim, "copying")
    assert made.changed_inputs == ("model:planted:copying", "model:planted:induction")
    assert "planted:copying" in made.facts()[0][1], "what was measured, not what the file says"
    assert "planted:induction" in made.facts()[1][1]


def test_an_interrupted_check_measures_only_what_is_missing(cli, planted, monkeypatch):
    measured, vary = [], verb.CheckClaim._vary

    def once(self, run, claim, settings, folder):
        if measured:
            raise KeyboardInterrupt
        measured.append(settings)
        return vary(self, run, claim, settings, folder)

    with monkeypatch.context() as patch:
        patch.setattr(verb.CheckClaim, "_vary", once)
        with pytest.raises(KeyboardInterrupt):
            verb.CheckClaim(file=planted / "claim.json", name="cut", workspace=planted, threads=1).run()
    assert partial_path(planted / "claims" / "cut").is_dir()
    kept = partial_path(planted / "claims" / "cut") / "resume" / "variation-0.json"
    done = kept.read_text()
    kept.write_text(done.replace('"model:planted:induction": "', '"model:planted:induction": "00'))
    assert "changed since this check began" in cli(planted, *CHECK, planted / "claim.json", "--name", "cut", code=2)
    kept.write_text(done)
    (kept.parent / "variation-1.json").unlink()
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(verb.CheckClaim, "_vary", lambda *given: calls.append(given[3]) or vary(*given))
        cli(planted, *CHECK, planted / "claim.json", "--name", "cut")
    assert list(calls) == [{"seeds": [3, 4, 5]}]
    assert "model:planted:induction" in Workspace(planted).open(Claim, "cut").about.parents


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"analysis": "record"}, "'record'"),
        ({"settings": {"model": "someone/elses"}}, "model of a claim"),
        ({"settings": {"model": "planted:induction", "workspace": "/"}}, "setting of circuit induction"),
        ({"settings": {"model": "planted:induction", "program": "x.jsonl"}}, "setting of circuit induction"),
        ({"sentence": "x" * 1000}, "sentence"),
        ({"code": "print()"}, "code"),
        ({"number": "faith"}, "'faith'"),
        ({"rule": "Supported: always."}, "the rule of a claim"),
        ({"variations": []}, "variations"),
        ({"variations": [{}, {"seeds": [3]}, {"seeds": [3]}]}, "no two are the same"),
        ({"variations": [{"seeds": [3]}]}, "the first changes nothing"),
        ({"settings": {"model": ["planted:induction"]}}, "takes one value"),
        ({"settings": {"model": "planted:induction", "seeds": [0] * 999}}, "a list of 1 to 64"),
        ({"settings": {"model": "planted:induction", "seeds": ["1"]}}, "seeds of a claim is a whole number"),
        ({"settings": {"model": "planted:induction", "copying_tokens": 10**12}}, "at most 20,480"),
        ({"settings": {"model": "planted:induction", "context_length": 10**9}}, "at most 10,000"),
        ({"analysis": "align", "settings": {"model": "small:mlp-1l", "program": "/etc/pairs"}}, "program of a claim"),
        ({"analysis": "prove", "settings": {"allow_other_weights": True}}, "setting of prove"),
    ],
)
def test_a_file_from_elsewhere_is_data(cli, planted, tmp_path, changes, words):
    assert words in cli(planted, *CHECK, edited(planted, tmp_path / "bad.json", **changes), "--name", "bad", code=2)


def test_other_inputs_are_said_first_and_a_missing_file_has_a_next_step(cli, planted, tmp_path):
    path = edited(planted, tmp_path / "hash.json", inputs={"model:planted:induction": "00" * 32}, variations=[{}])
    out = cli(planted, *CHECK, path, "--name", "hash")
    assert out.index("other inputs than in the file: model:planted:induction") < out.index("Supported")
    assert "claim` writes one" in cli(planted, *CHECK, tmp_path / "none.json", code=2)
    assert "seeds" in cli(planted, "claim", "claims/hash", "--seeds", 64, code=2)
    assert "states nothing that can be checked" in cli(planted, "claim", "claims/hash", code=2)


def test_the_verdict_follows_from_all_variations():
    def row(outcome):
        return VariationResult(changed="", value=1.0, low=None, high=None, null=0.0, outcome=outcome, seconds=0.0)

    yes, no, open_ = row("supported"), row("not supported"), row("undecided")
    assert [verdict_of(rows) for rows in ([yes, yes], [yes, no], [yes, no, no], [yes, open_], [open_], [], [no])] == [
        "supported", "undecided", "not supported", "undecided", "undecided", "undecided", "not supported"]  # fmt: skip
