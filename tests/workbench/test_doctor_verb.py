"""`workbench doctor`: exit codes, the certificate, JSON, and what later analyses carry along."""

import json
from pathlib import Path

import pytest

from interp.doctor.certificate import Certificate
from interp.workspace import Workspace
from tests.campaigns.doctor import principal
from tests.campaigns.set_ups import write_family


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family("llama", tmp_path_factory.mktemp("doctor") / "llama")


def test_a_healthy_model_exits_0_and_later_analyses_carry_the_certificate(cli, folder, tmp_path):
    out = cli(tmp_path / "w", "doctor", folder, "--quick", "--name", "mine")
    assert "checks passed" in out
    assert "logits alone" in out
    cli(tmp_path / "w", "heads", folder, "--name", "scores", "--n-prompts", 2)
    workspace = Workspace(tmp_path / "w")
    certificate = workspace.open(Certificate, "mine")
    assert workspace.manifest("heads", "scores").parents["certificates/mine"] == certificate.about.content_hash
    out = cli(tmp_path / "w", "doctor", folder, "--quick", "--name", "mine", "--json")  # again, replaced
    assert {"part", "name", "verdict", "did", "expected", "came", "means"} == json.loads(out)[0].keys()


def test_a_failed_check_exits_1_and_says_what_it_means(cli, folder, tmp_path):
    import torch

    from interp.models.loading import load_model
    from tests.fixtures.make_saes import saved

    workspace = Workspace(tmp_path / "w", create=True)
    sae, _ = principal(str(folder), "topk", load_model(str(folder)))
    sae.W_dec.data = sae.W_dec[torch.randperm(sae.d_sae, generator=torch.Generator().manual_seed(0))]
    saved(workspace, "shuffled", sae)
    out = cli(workspace, "doctor", folder, "--dictionary", "shuffled", "--quick", code=1)
    assert "FAILED learned" in out
    assert "it means: Its weights are not those that were trained" in out


def test_a_path_is_answered_with_where_a_dictionary_goes(cli, tmp_path):
    Workspace(tmp_path / "w", create=True)
    words = ("doctor", "small:mlp-2l", "--dictionary", "checkpoints/layers.9")
    refusal = cli(tmp_path / "w", *words, code=2)
    assert "saes; checkpoints/layers.9 is a path" in refusal
    assert "import checkpoints/layers.9 --model small:mlp-2l --name NAME" in refusal
