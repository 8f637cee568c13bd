"""`attribute` and `steer`: what features do inside a model, from the command line."""

import sys
from pathlib import Path

import pytest
import torch
from make_saes import saved

from interp.directions.study import DirectionGeometry
from interp.models.adapter import weight_hash
from interp.workspace import Workspace
from saes.evaluation.latent_comparison import LatentComparison
from saes.features.schema import KnownFeature
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.topk import TopKSAE
from saes.kinds.transcoder import Transcoder

sys.path.append(str(Path(__file__).parents[1] / "saes"))  # where recordings are written by hand
from planted import HOOK, write_recording

MODEL = "small:mlp-2l"
ONE = ("--threads", 1)
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


def test_attribution_prints_features_the_error_and_what_adds_up(cli, folder):
    out = cli(folder, "attribute", "early", "mlp", "--prompt", "one two", "--target", "t", "--top", "3", *ONE)
    assert "log-probability of 't' after 'one two'" in out
    early = out[out.index("early at blocks.0.hook_resid_post") : out.index("mlp at blocks.1.hook_mlp_out")]
    total = float(early.splitlines()[0].rsplit(":", 1)[1])
    parts = [float(line.split()[0]) for line in early.splitlines()[1:] if line.strip()]
    assert sum(parts) == pytest.approx(total, abs=0.005)
    assert early.count("feature ") == early.count("(alone ") == 3
    assert "reconstruction error of the SAE" in early


def test_attribution_against_another_prompt_and_answer(cli, folder):
    words = ("attribute", "late", "--prompt", "one two", "--corrupt", "one six", "--target", "t", "--wrong", "s")
    assert "with corrupted prompts" in cli(folder, *words, *ONE)
    assert "positions must match" in cli(folder, *words[:-5], "longer than that", "--target", "t", *ONE, code=2)


def test_steering_changes_what_is_written_and_ablating_nothing_does_not(cli, folder):
    words = ("steer", "late", "--prompt", "one two", "--new-tokens", "6", "--samples", "1", "--feature", "3")
    out = cli(folder, *words, "--activation", "40", *ONE)
    assert "+40 on every token" in out
    assert "KL of the distributions 0.000" not in out
    pairs = [line.split("|", 1)[1] for line in out.splitlines() if line.startswith("  with")]
    assert len(pairs) == 4
    assert pairs[0] != pairs[1]
    assert "of a random direction as long" in out
    assert sum(line.startswith("  random") for line in out.splitlines()) == 2
    assert cli(folder, *words, "--activation", "40", *ONE) == out, "one seed, one text"
    out = cli(folder, *words, "--activation", "0", *ONE)
    pairs = [line.split("|", 1)[1] for line in out.splitlines() if line.startswith("  with")]
    assert pairs[0::2] == pairs[1::2], "samples of a pair share their seed"
    for more in (("--action", "ablate"), ("--action", "set", "--activation", "2", "--no-keep-error")):
        cli(folder, *words, *more, *ONE)


def test_amounts_are_in_units_of_the_largest_activation(cli, folder, monkeypatch):
    words = ("steer", "late", "--prompt", "one two", "--new-tokens", "4", "--samples", "0", "--feature", "3")
    out = cli(folder, *words, "--activation", "40", *ONE)
    expected = [line for line in out.splitlines() if line.startswith("  ")]
    monkeypatch.setattr("workbench.verbs.features.known_features", lambda *_: {3: KnownFeature(largest=20.0)})
    out = cli(folder, *words, "--amount", "2", *ONE)
    assert "+40 on every token, 2 times its maximum" in out
    assert [line for line in out.splitlines() if line.startswith("  ")] == expected
    assert "+20 on every token, 1 times its maximum" in cli(folder, *words, *ONE)
    assert "times 2" in cli(folder, *words, "--action", "scale", "--amount", "2", *ONE)
    for wrong, told in ((("--action", "scale"), "the factor"), (("--amount", "1", "--activation", "2"), "not both")):
        assert told in cli(folder, *words, *wrong, *ONE, code=2)


def test_a_recipe_that_was_written_steers_alike_and_names_its_own_feature(cli, folder, tmp_path):
    words = ("--prompt", "one two", "--new-tokens", "6", "--samples", "0")
    file = tmp_path / "up.json"
    first = cli(
        folder, "steer", "late", "--feature", "3", "--activation", "40", "--write", str(file), *words, *ONE
    ).splitlines()
    again = cli(folder, "steer", str(file), *words, *ONE).splitlines()
    assert [line for line in again if "|" in line] == [line for line in first if "|" in line]
    assert "a recipe has its own" in cli(folder, "steer", str(file), "--feature", "3", *words, *ONE, code=2)
    file.write_text(file.read_text().replace('"reads": "blocks.', '"reads": "blocks.1'))
    assert "was made for saes/late at" in cli(folder, "steer", str(file), *words, *ONE, code=2)


def test_a_transcoder_is_steered_where_it_writes(cli, folder):
    words = ("steer", "mlp", "--prompt", "one", "--new-tokens", "2", "--samples", "0", "--feature", "1")
    assert "set to 30" in cli(folder, *words, "--action", "set", "--activation", "30", *ONE)


def test_two_models_are_told_apart_from_the_command_line(cli, tmp_path):
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
    train = ("train", "base", "--others", "tuned", "--kind", "crosscoder", "--hook-point", HOOK, "--name", "pair")
    cli(tmp_path, *train, "--d-sae", 16, "--k", 2, "--tokens", 60_000, "--lr", 0.01, "--batch-size", 256, *ONE)
    assert "1 of tuned only, " in cli(tmp_path, "compare", "latents", "pair", *ONE)
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
        (("steer", "early", "--prompt", "x", "--feature", "1", "--temperature", "0"), "temperature must be above 0"),
        (("compare", "latents", "early"), "early is not a crosscoder"),
        (("compare", "latents", "nothing"), "unknown sae 'nothing'"),
    ],
)
def test_mistakes_are_one_line(cli, folder, words, expected):
    assert expected in cli(folder, *words, *ONE, code=2)


def test_a_feature_is_a_direction_at_the_place_where_it_writes(cli, folder):
    words = ("direction", MODEL, "--lists", "letters", "--no-interventions", *ONE, "--feature")
    told = cli(folder, *words, "mlp:7")
    assert "Steering along mlp 7 was not measured" in told
    assert "along the direction at blocks.1.hook_mlp_out" in told
    found = Workspace(folder).open(DirectionGeometry, "direction-mlp-7")
    assert "saes/mlp" in found.about.parents
    assert found.settings.direction.source == "feature 7 of the SAE mlp"
    assert f"0 to {D_SAE - 1}" in cli(folder, *words, f"mlp:{D_SAE}", code=2)
    elsewhere = cli(folder, *words, "mlp:7", "--at", "blocks.1.mlp.hook_in", "--name", "b", code=2)
    assert "writes to blocks.1.hook_mlp_out" in elsewhere
