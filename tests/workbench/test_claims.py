"""`workbench claim` and `workbench check`: a planted claim, one that fails, and files that say too much."""

import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
from make_routes import make_routes
from page_text import text_of

from dashboard.artefact.sections import panels, summary
from interp.artifacts import partial_path, write_json
from interp.circuits.found_circuit import EdgeCircuit, UnderAttack
from interp.circuits.tasks import induction_task, task_from_file
from interp.circuits.worst_case import mean_and_worst
from interp.claims import Claim, ClaimFile, VariationResult, verdict_of
from interp.errors import ConfigError, NoGapError
from interp.forms import from_json
from interp.models.loading import load_model
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
    assert "other seeds 1 of 1 hold, other wordings not tested, other models not tested" in again


@pytest.mark.slow
def test_other_instructions_and_threads_give_the_same_verdict(cli, tmp_path):
    cli(tmp_path, "circuit", "induction", "toy:induction-2l", "--prompts-per-seed", 4, "--name", "toy")
    file, at = tmp_path / "claim.json", ("--workspace", str(tmp_path))
    cli(tmp_path, "claim", "induction-circuits/toy", "--seeds", 0, "--out", file)
    cli(tmp_path, *CHECK, file, "--name", "here", "--out", file)
    for name, threads, capability in (("plain", "1", {"ATEN_CPU_CAPABILITY": "default"}), ("two", "2", {})):
        command = [sys.executable, "-m", "workbench", "check", str(file), "--name", name, "--threads", threads, *at]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | capability)
        made = Workspace(tmp_path).open(Claim, name)
        assert made.outcome == "supported"
        assert made.machine["threads"] == threads
        assert made.machine["instructions"] == capability.get("ATEN_CPU_CAPABILITY", made.machine["instructions"])
        said = made.against_file()[0]
        assert said.startswith(("the same bits", "the same verdict as in the file; numbers and nulls"))
        assert said in done.stdout


def test_a_claim_about_a_model_without_the_circuit_is_not_supported(cli, planted, tmp_path):
    settings = json.loads((planted / "claim.json").read_text())["settings"] | {"model": "planted:copying"}
    out = cli(planted, *CHECK, edited(planted, tmp_path / "other.json", settings=settings), "--name", "copying")
    assert "Not supported: it holds in 0 of 2 variations" in out
    made = Workspace(planted).open(Claim, "copying")
    assert made.changed_inputs == ("model:planted:copying", "model:planted:induction")
    said = dict(made.facts())
    assert "planted:copying" in said["claim"], "what was measured, not what the file says"
    assert "planted:induction" in said["the file says"]
    assert said["would refute it"].endswith("Here 2 of 2 fail, 0 are undecided.")
    failed, undecided = made.variations[0], replace(made.variations[0], outcome="undecided")
    mostly_open = replace(made, variations=(failed, undecided, undecided))
    assert mostly_open.outcome == "not supported"
    assert "half of the decided variations failing" in dict(mostly_open.facts())["would refute it"]
    unattacked = replace(made, settings=replace(made.settings, settings=settings | {"attacked": False}))
    assert any("under attack not tested" in line for line in unattacked.kinds_of_validity())


def test_an_interrupted_check_measures_only_what_is_missing(cli, planted, monkeypatch):
    measured, vary = [], verb.CheckClaim._vary

    def once(self, run, claim, settings, *rest):
        if measured:
            raise KeyboardInterrupt
        measured.append(settings)
        return vary(self, run, claim, settings, *rest)

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
    (kept.parent / "variation-1.json").unlink(missing_ok=True)
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
        ({"settings": {"model": "someone/elses"}}, "settings.model"),
        ({"settings": {"model": "planted:induction", "workspace": "/"}}, "setting of circuit induction"),
        ({"settings": {"model": "planted:induction", "program": "x.jsonl"}}, "setting of circuit induction"),
        ({"sentence": "x" * 1000}, "sentence"),
        ({"code": "print()"}, "code"),
        ({"number": "faith"}, "'faith'"),
        ({"rule": "Supported: always."}, "the rule of a claim"),
        ({"variations": []}, "variations"),
        ({"variations": [{}, {"seeds": [3]}, {"seeds": [3]}]}, "no two are the same"),
        ({"variations": [{}, {"model": "planted:induction"}]}, "no two are the same"),
        ({"variations": [{"seeds": [3]}]}, "the first changes nothing"),
        ({"settings": {"model": ["planted:induction"]}}, "takes one value"),
        ({"settings": {"model": "planted:induction", "seeds": [0] * 999}}, "a list of 1 to 64"),
        ({"settings": {"model": "planted:induction", "seeds": ["1"]}}, "settings.seeds is a whole number"),
        ({"settings": {"model": "planted:induction", "max_candidates": 10**12}}, "at most 240"),
        ({"settings": {"model": "planted:induction", "context_length": 10**9}}, "at most 10,000"),
        ({"analysis": "prove", "settings": {"allow_other_weights": True}}, "setting of prove"),
        ({"variations": [{}, {"seeds": [3, 4]}, {"max_candidates": 10**12}]}, "variations.2.max_candidates is a whole"),
        ({"variations": [{}, {"prompts_per_seed": 0}]}, "variations.1: prompts_per_seed must be at least 3"),
        ({"inputs": {"text:../x.jsonl": "00"}}, "is not the name of a file"),
        ({"inputs": {"text:x.jsonl": "00"}}, "give the file: --text x.jsonl"),
        ({"inputs": {"text:x.jsonl": "00"}, "texts": {"x.jsonl": "a"}}, "texts.x.jsonl has the hash"),
        ({"texts": {"x.jsonl": "a"}}, "'x.jsonl' has no hash"),
        ({"texts": {"x.jsonl": "a" * 70_000}}, "texts.x.jsonl"),
        ({"texts": {"../x.jsonl": "a"}}, "without its folder"),
        ({"machine": {"torch": "\x1b[2J"}}, "names in one line"),
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


@pytest.fixture(scope="module")
def circuit(planted):
    """The workspace, with a circuit of the planted model that `circuit find` found."""
    from workbench.__main__ import main

    words = "circuit find planted:induction --task induction --prompts 4 --n-random 3 --verify 0 --n-minimality 1"
    assert main([*words.split(), "--fractions", "0.2", "0.5", "--name", "ind", "--workspace", str(planted)]) == 0
    return planted


def test_a_circuit_that_was_found_is_claimed_with_an_attack_among_its_variations(cli, circuit, tmp_path):
    cli(circuit, "claim", "edge-circuits/ind", "--seeds", 1, "--out", tmp_path / "claim.json")
    claim = from_json(ClaimFile, json.loads((tmp_path / "claim.json").read_text()), "claim.json")
    assert claim.variations == ({}, {"seed": 1}, {"attacked": True})
    cli(circuit, *CHECK, tmp_path / "claim.json", "--name", "ind")
    made = Workspace(circuit).open(Claim, "ind")
    assert made.outcome == "supported"
    assert [row.changed for row in made.variations] == ["as stated", "seed 1", "attacked"]
    assert all(row.value == pytest.approx(1) and row.null < 0.5 for row in made.variations)
    assert "under attack 1 of 1 hold" in (page := text_of(summary(made)))
    assert "State this as a claim" not in page
    assert made.variations[0].value == Workspace(circuit).open(EdgeCircuit, "ind").evaluation.faithfulness.estimate
    harder = verb.CheckClaim(file=tmp_path / "claim.json", harder=True).claim().variations[3:]
    assert harder == ({"seed": 3}, {"seed": 4}, {"attacked": True, "seed": 5})


@pytest.fixture(scope="module")
def on_file(planted):
    """The workspace with a circuit of prompts from a file, and the file, which has text that looks like a page."""
    from workbench.__main__ import main

    model = load_model("planted:induction")
    task, file = induction_task(model, n_prompts=16), planted / "ioi <b>.jsonl"
    pairs = [(clean.tolist(), corrupt.tolist()) for clean, corrupt in zip(task.clean, task.corrupt, strict=True)]
    rows = [
        {
            "clean": words_of(clean[:-1]),
            "corrupt": words_of(corrupt[:-1]),
            "correct": str(clean[-1]),
            "note": "<script>",
        }
        for clean, corrupt in pairs
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    words = "--prompts 4 --n-random 3 --verify 0 --n-minimality 1 --fractions 0.2 0.5 --name own"
    task = ["--task", str(file), "--workspace", str(planted)]
    assert main(["circuit", "find", "planted:induction", *words.split(), *task]) == 0
    return file


def words_of(tokens):
    return " ".join(map(str, tokens))


def test_a_circuit_of_prompts_from_a_file_is_checked_where_the_file_is_not(cli, planted, on_file, tmp_path):
    text = on_file.read_text()
    cli(planted, "claim", "edge-circuits/own", "--seeds", 1, "--out", tmp_path / "claim.json")
    claim = from_json(ClaimFile, json.loads((tmp_path / "claim.json").read_text()), "claim.json")
    assert claim.texts == {on_file.name: text}
    assert claim.inputs[f"text:{on_file.name}"] == hashlib.sha256(text.encode()).hexdigest()
    assert claim.variations == ({}, {"seed": 1}, {"attacked": True, "held_out": 8})
    on_file.rename(tmp_path / "elsewhere.jsonl")
    assert "ioi <b>" in cli(planted, "circuit", "attack", "own", "--prompts", 2, "--n-random", 2, "--gradient-steps", 0)
    out = cli(tmp_path / "empty", *CHECK, tmp_path / "claim.json", "--name", "own")
    made, found = Workspace(tmp_path / "empty").open(Claim, "own"), Workspace(planted).open(EdgeCircuit, "own")
    assert "other inputs" not in out
    assert (made.outcome, made.changed_inputs) == ("supported", ())
    assert made.variations[0].value == found.evaluation.faithfulness.estimate
    (tmp_path / "elsewhere.jsonl").rename(on_file)
    model = load_model("planted:induction")
    read = partial(task_from_file, model, on_file, n_prompts=4, check_gap=False)
    first, other, same = (read(seed=seed).clean.tolist() for seed in (0, 1, 1))
    assert first != other == same, "another seed takes the lines in another order"
    page = "".join(map(text_of, panels(Workspace(tmp_path / "empty"), made)))
    assert "Document texts" in page
    assert json.dumps(text)[1:-1] in page, "as it is written, in one text"


def test_a_text_that_is_too_long_is_named_by_its_hash_and_given(cli, planted, on_file, tmp_path):
    cli(planted, "claim", "edge-circuits/own", "--seeds", 0, "--out", tmp_path / "claim.json")
    document = json.loads((tmp_path / "claim.json").read_text())
    write_json(tmp_path / "claim.json", document | {"texts": {}, "variations": [{}]})
    (tmp_path / "other.jsonl").write_text("")
    said = cli(planted, *CHECK, tmp_path / "claim.json", "--text", tmp_path / "other.jsonl", "--name", "long", code=2)
    assert f"the claim reads {on_file.name} with the SHA-256 hash" in said
    assert "other.jsonl has" in said
    cli(planted, *CHECK, tmp_path / "claim.json", "--text", on_file, "--name", "long")
    assert Workspace(planted).open(Claim, "long").outcome == "supported"


def test_a_circuit_that_an_adversary_breaks_is_no_supported_claim(circuit):
    found = Workspace(circuit).open(EdgeCircuit, "ind")
    outcomes = {True: "supported", False: "not supported", None: "undecided"}
    for stands, outcome in outcomes.items():
        attack = UnderAttack(left=0.3, low=0.2, high=0.4, null=0.1, stands=stands)
        stated = replace(found, attacked=attack).stated()["faithfulness"]
        assert (stated.value, stated.null, stated.outcome) == (0.3, 0.1, outcome)
    unfound = replace(found, verdict=replace(found.verdict, holds=False), attacked=attack)
    assert unfound.stated()["faithfulness"].outcome == "not supported"
    assert replace(found, attacked=attack).as_options()["attacked"] is True
    settings = {"held_out": 4, "prompts": 4, "task": "ioi", "judged_template": 1, "attacked": True}
    assert [*verb.other_prompts(verb.Find, settings)] == [{"judged_template": 0}, {"judged_template": 2}]
    assert mean_and_worst(replace(found, attacked=attack), []).endswith("; 30% under attack")


def test_a_task_that_the_model_lacks_in_a_variation_leaves_it_undecided(cli, circuit, tmp_path, monkeypatch):
    cli(circuit, "claim", "edge-circuits/ind", "--seeds", 0, "--out", tmp_path / "claim.json")
    measure = verb.Find.measure

    def lacks(self, run):
        if self.attacked:
            raise NoGapError("no gap")
        return measure(self, run)

    monkeypatch.setattr(verb.Find, "measure", lacks)
    assert "not measured: no gap" in cli(circuit, *CHECK, tmp_path / "claim.json", "--name", "lacks")
    made = Workspace(circuit).open(Claim, "lacks")
    assert [row.outcome for row in made.variations] == ["supported", "undecided"]
    assert (made.outcome, math.isnan(made.variations[1].value)) == ("undecided", True)


@pytest.mark.parametrize(
    ("null", "outcome"),
    [((0.3,) * 19, "supported"), ((0.3,) * 18, "undecided"), ((0.3, 9.1), "not supported"), ((), "undecided")],
)
def test_a_swap_is_supported_beyond_all_of_nineteen_draws(null, outcome):
    value = make_routes()
    stated = replace(value, swaps=(replace(value.swaps[0], null=null),)).stated()["swap"]
    assert (stated.subject, stated.value, stated.outcome) == ("route", value.swaps[0].after.moved, outcome)
    with pytest.raises(ConfigError, match="--swap"):
        replace(value, swaps=()).stated()


def test_a_route_is_claimed_with_other_wordings_and_counterparts(cli, tmp_path):
    cli(tmp_path, "why", "planted:induction", "5 3 8 5", "--swap", "3=9", "--name", "copied")
    file = tmp_path / "claim.json"
    vary = ("--vary", "text=7 3 6 7", "--vary", "swap=3=8")
    cli(tmp_path, "claim", "routes/copied", "--number", "swap", *vary, "--out", file)
    claim = from_json(ClaimFile, json.loads(file.read_text()), file)
    assert claim.variations == ({}, {"text": "7 3 6 7"}, {"swap": ["3=8"]})
    out = cli(tmp_path, *CHECK, file, "--name", "mine")
    made = Workspace(tmp_path).open(Claim, "mine")
    assert made.outcome != "supported", "five draws of a null are too few"
    assert [row.changed for row in made.variations] == ["as stated", "text 7 3 6 7", "swap 3=8"]
    assert "other seeds not tested" in out
    for refused in (("--vary", "txt=a"), ("--vary", "nulls=many")):
        assert cli(tmp_path, "claim", "routes/copied", "--number", "swap", *refused, code=2)
    assert "adds seeds" in cli(tmp_path, "check", file, "--harder", code=2)
