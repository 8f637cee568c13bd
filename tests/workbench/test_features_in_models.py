"""`attribute`, `steer` and `circuit features`: what features do inside a model, from the command line."""

import json
import sys
from pathlib import Path

import pytest
import torch
from make_saes import saved

from interp.directions.study import DirectionGeometry
from interp.models.adapter import weight_hash
from interp.workspace import Workspace
from saes.circuits.feature_circuit import FeatureCircuit
from saes.evaluation.latent_comparison import LatentComparison
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.topk import TopKSAE
from saes.kinds.transcoder import Transcoder
from workbench.__main__ import main

sys.path.append(str(Path(__file__).parents[1] / "saes"))  # where recordings are written by hand
from planted import HOOK, write_recording

MODEL = "small:mlp-2l"
D, D_SAE = 64, 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model) -> Path:
    """A workspace with two SAEs and a transcoder of a tiny model."""
    root = tmp_path_factory.mktemp("workspace")
    workspace, generator = Workspace(root), torch.Generator().manual_seed(0)
    places = {
        "early": ("blocks.0.hook_resid_post", ""),
        "late": ("blocks.1.hook_resid_post", ""),
        "mlp": ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"),
    }
    for name, (reads, writes) in places.items():
        rows = torch.nn.functional.normalize(torch.randn(D_SAE, D, generator=generator), dim=1)
        weights = Weights(rows.T.contiguous(), torch.zeros(D_SAE), rows, torch.zeros(D))
        about = SAEMetadata(
            model=MODEL, weight_hash=weight_hash(tiny_model), hook_point=reads, hook_point_out=writes, bos="context"
        )
        sae = Transcoder(weights, metadata=about) if writes else TopKSAE(weights, k=8, metadata=about)
        saved(workspace, name, sae)
    return root


def run(folder: Path, *words: str) -> int:
    return main([*words, "--workspace", str(folder), "--threads", "1"])


def test_attribution_prints_features_the_error_and_what_adds_up(folder, capsys):
    assert run(folder, "attribute", "early", "mlp", "--prompt", "one two", "--target", "t", "--top", "3") == 0
    out = capsys.readouterr().out
    assert "log-probability of 't' after 'one two'" in out
    early = out[out.index("early at blocks.0.hook_resid_post") : out.index("mlp at blocks.1.hook_mlp_out")]
    total = float(early.splitlines()[0].rsplit(":", 1)[1])
    parts = [float(line.split()[0]) for line in early.splitlines()[1:] if line.strip()]
    assert sum(parts) == pytest.approx(total, abs=0.005)
    assert early.count("feature ") == early.count("(alone ") == 3
    assert "reconstruction error of the SAE" in early


def test_attribution_against_another_prompt_and_answer(folder, capsys):
    words = ("attribute", "late", "--prompt", "one two", "--corrupt", "one six", "--target", "t", "--wrong", "s")
    assert run(folder, *words) == 0
    assert "with corrupted prompts" in capsys.readouterr().out
    assert run(folder, *words[:-5], "longer than that", "--target", "t") == 2
    assert "positions must match" in capsys.readouterr().err


def test_steering_changes_what_is_written_and_ablating_nothing_does_not(folder, capsys):
    words = ("steer", "late", "--prompt", "one two", "--new-tokens", "6", "--samples", "1", "--feature", "3")
    assert run(folder, *words, "--activation", "40") == 0
    out = capsys.readouterr().out
    assert "+40 on every token" in out
    assert "KL of the distributions 0.000" not in out
    pairs = [line.split("|", 1)[1] for line in out.splitlines() if line.startswith("  with")]
    assert len(pairs) == 4
    assert pairs[0] != pairs[1]
    assert "of a random direction as long" in out
    assert sum(line.startswith("  random") for line in out.splitlines()) == 2
    assert run(folder, *words, "--activation", "40") == 0
    assert capsys.readouterr().out == out, "one seed, one text"
    assert run(folder, *words, "--activation", "0") == 0
    pairs = [line.split("|", 1)[1] for line in capsys.readouterr().out.splitlines() if line.startswith("  with")]
    assert pairs[0::2] == pairs[1::2], "samples of a pair share their seed"
    for more in (("--action", "ablate"), ("--action", "set", "--activation", "2", "--no-keep-error")):
        assert run(folder, *words, *more) == 0


def test_amounts_are_in_units_of_the_largest_activation(folder, capsys, monkeypatch):
    words = ("steer", "late", "--prompt", "one two", "--new-tokens", "4", "--samples", "0", "--feature", "3")
    assert run(folder, *words, "--activation", "40") == 0
    expected = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    monkeypatch.setattr("workbench.opening.feature_table", lambda *_: {3: {"max_activation": 20.0}})
    assert run(folder, *words, "--amount", "2") == 0
    out = capsys.readouterr().out
    assert "+40 on every token, 2 times its maximum" in out
    assert [line for line in out.splitlines() if line.startswith("  ")] == expected
    assert run(folder, *words) == 0
    assert "+20 on every token, 1 times its maximum" in capsys.readouterr().out
    assert run(folder, *words, "--action", "scale", "--amount", "2") == 0
    assert "times 2" in capsys.readouterr().out
    for wrong, told in ((("--action", "scale"), "the factor"), (("--amount", "1", "--activation", "2"), "not both")):
        assert run(folder, *words, *wrong) == 2
        assert told in capsys.readouterr().err


def test_a_recipe_that_was_written_steers_alike_and_names_its_own_feature(folder, tmp_path, capsys):
    words = ("--prompt", "one two", "--new-tokens", "6", "--samples", "0")
    file = tmp_path / "up.json"
    assert run(folder, "steer", "late", "--feature", "3", "--activation", "40", "--write", str(file), *words) == 0
    first = capsys.readouterr().out.splitlines()
    assert run(folder, "steer", str(file), *words) == 0
    again = capsys.readouterr().out.splitlines()
    assert [line for line in again if "|" in line] == [line for line in first if "|" in line]
    assert run(folder, "steer", str(file), "--feature", "3", *words) == 2
    assert "a recipe has its own" in capsys.readouterr().err
    file.write_text(file.read_text().replace('"reads": "blocks.', '"reads": "blocks.1'))
    assert run(folder, "steer", str(file), *words) == 2
    assert "was made for saes/late at" in capsys.readouterr().err


def test_a_transcoder_is_steered_where_it_writes(folder, capsys):
    words = ("steer", "mlp", "--prompt", "one", "--new-tokens", "2", "--samples", "0", "--feature", "1")
    assert run(folder, *words, "--action", "set", "--activation", "30") == 0
    assert "set to 30" in capsys.readouterr().out


def test_a_circuit_of_features_is_found_saved_and_shown(folder, tmp_path, capsys):
    pairs = tmp_path / "pairs.jsonl"
    lines = [{"clean": f"a{x}", "corrupt": f"b{x}", "correct": "a", "wrong": "b"} for x in "cdefgh"]
    pairs.write_text("\n".join(map(json.dumps, lines)))
    options = ("--n-features", "4", "--n-edges", "9", "--steps", "2", "--verify", "4", "--n-random", "3")
    assert run(folder, "circuit", "features", "late", "early", "--task", str(pairs), *options, "--name", "pairs") == 0
    found = Workspace(folder).open(FeatureCircuit, "pairs")
    assert found.settings.hook_points == ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
    assert {node.name for node in found.circuit.nodes} >= {"L0resid.error", "L1resid.error"}
    assert "rank agreement" in capsys.readouterr().out
    assert set(found.about.parents) >= {"saes/early", "saes/late"}
    assert main(["circuit", "show", "pairs", "--workspace", str(folder)]) == 0
    assert "L0resid.error" in capsys.readouterr().out
    assert run(folder, "circuit", "features", "late", "--task", str(pairs), "--name", "pairs") == 2
    assert "already there" in capsys.readouterr().err


def test_two_models_are_told_apart_from_the_command_line(tmp_path, capsys):
    """Base and tuned: recordings of the same tokens, a crosscoder of both, and a folder of its latents."""
    generator, d, n = torch.Generator().manual_seed(1), 12, 4000
    strength = (torch.rand(n, 10, generator=generator) < 0.2) * (1 + torch.rand(n, 10, generator=generator))
    base = strength.clone()
    base[:, 0] = 0
    document = torch.arange(n) // 200
    for name, strengths, letter in (("base", base, "a"), ("tuned", strength, "b")):
        x = torch.nn.functional.pad(strengths, (0, d - 10))
        made = {"context_length": 40, "shard_contexts": 100, "weight_hash": letter * 64}
        write_recording(tmp_path / "recordings" / name, x, torch.ones(n), document, **made)
    train = (
        "--others",
        "tuned",
        "--kind",
        "crosscoder",
        "--hook-point",
        HOOK,
        "--d-sae",
        "16",
        "--k",
        "2",
        "--tokens",
        "60000",
    )
    assert run(tmp_path, "train", "base", *train, "--lr", "0.01", "--batch-size", "256", "--name", "pair") == 0
    assert run(tmp_path, "compare", "latents", "pair") == 0
    assert "1 of tuned only (of 1)" in capsys.readouterr().out
    found = Workspace(tmp_path).open(LatentComparison, "latents-pair")
    assert found.counts["second_only_confirmed"] == 1
    assert found.counts["first_only"] == 0
    assert set(found.about.parents) == {"saes/pair", "recordings/base", "recordings/tuned"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("attribute", "nothing", "--prompt", "x"), "unknown sae 'nothing'"),
        (("attribute", "--prompt", "x"), "attribute needs SAE [SAE ...]: Names of SAEs"),
        (("attribute", "early", "--prompt", ""), "the prompt is empty"),
        (("attribute", "early", "early", "--prompt", "x", "--target", "t"), "two SAEs write at one hook point"),
        (("attribute", "early", "--prompt", "x", "--target", "th"), "2 tokens"),
        (("attribute", "early", "--prompt", "x", "--model", "small:attn-only-2l"), "trained on small:mlp-2l"),
        (("steer", "early", "--prompt", "x", "--feature", "3"), "give --activation"),
        (("steer", "early", "--prompt", "x", "--feature", "100", "--activation", "1"), "features 0 to 99"),
        (("steer", "early", "--prompt", "x", "--feature", "1", "--activation", "1", "--new-tokens", "999"), "context"),
        (("steer", "early", "--prompt", "x", "--feature", "1", "--temperature", "0"), "temperature above 0"),
        (("circuit", "features", "early", "--task", "iio"), "did you mean 'ioi'"),
        (("compare", "latents", "early"), "early is not a crosscoder"),
        (("compare", "latents", "nothing"), "unknown sae 'nothing'"),
    ],
)
def test_mistakes_are_one_line(folder, words, expected, capsys):
    assert run(folder, *words) == 2
    assert expected in capsys.readouterr().err


def test_a_feature_is_a_direction_at_the_place_where_it_writes(folder, capsys):
    few = ["--lists", "letters", "--no-interventions"]
    assert run(folder, "direction", MODEL, "--feature", "mlp:7", *few) == 0
    told = capsys.readouterr().out
    assert "The direction mlp 7 of" in told
    assert "along the direction at blocks.1.hook_mlp_out" in told
    found = Workspace(folder).open(DirectionGeometry, "direction-mlp-7")
    assert "saes/mlp" in found.about.parents
    assert found.settings.direction.source == "feature 7 of the SAE mlp"
    assert run(folder, "direction", MODEL, "--feature", f"mlp:{D_SAE}", *few) == 2
    assert f"0 to {D_SAE - 1}" in capsys.readouterr().err
    assert run(folder, "direction", MODEL, "--feature", "mlp:7", "--at", "blocks.1.mlp.hook_in", "--name", "b") == 2
    assert "writes to blocks.1.hook_mlp_out" in capsys.readouterr().err
