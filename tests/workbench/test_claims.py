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
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(verb.CheckClaim, "_vary", lambda *given: calls.append(given[3]) or vary(*given))
        cli(planted, *CHECK, planted / "claim.json", "--name", "cut")
    assert list(calls) == [{"seeds": [3, 4, 5]}]


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
    ],
)
def test_a_file_from_elsewhere_is_data(cli, planted, tmp_path, changes, words):
    assert words in cli(planted, *CHECK, edited(planted, tmp_path / "bad.json", **changes), "--name", "bad", code=2)


def test_other_inputs_are_said_first_and_a_missing_file_has_a_next_step(cli, planted, tmp_path):
    path = edited(planted, tmp_path / "hash.json", inputs={"model:planted:induction": "00" * 32}, variations=[{}])
    out = cli(planted, *CHECK, path, "--name", "hash")
    assert out.index("other inputs than in the file: model:planted:induction") < out.index("Supported")
    assert "`workbench claim`" in cli(planted, *CHECK, tmp_path / "none.json", code=2).replace(".venv/bin/", "")
    assert "states nothing that can be checked" in cli(planted, "claim", "claims/hash", code=2)


def test_the_verdict_follows_from_all_variations():
    def row(outcome):
        return VariationResult(changed="", value=1.0, low=None, high=None, null=0.0, outcome=outcome, seconds=0.0)

    yes, no, open_ = row("supported"), row("not supported"), row("undecided")
    assert [verdict_of(rows) for rows in ([yes, yes], [yes, no], [yes, no, no], [yes, open_], [open_], [], [no])] == [
        "supported", "undecided", "not supported", "undecided", "undecided", "undecided", "not supported"]  # fmt: skip
