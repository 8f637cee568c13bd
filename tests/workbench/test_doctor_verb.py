"""`workbench doctor`: exit codes, the certificate, JSON, and what later analyses carry along."""

import json
from pathlib import Path

import pytest

from interp.doctor.certificate import Certificate
from interp.workspace import Workspace
from tests.campaigns.doctor import principal
from tests.campaigns.set_ups import write_family
from workbench.__main__ import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family("llama", tmp_path_factory.mktemp("doctor") / "llama")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main([*words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_healthy_model_exits_0_and_later_analyses_carry_the_certificate(folder, tmp_path, capsys):
    where = ["--workspace", str(tmp_path / "w")]
    code, out, _ = run(capsys, "doctor", str(folder), "--quick", "--name", "mine", *where)
    assert code == 0
    assert "checks passed" in out
    assert "logits alone" in out
    assert run(capsys, "heads", str(folder), "--name", "scores", "--n-prompts", "2", *where)[0] == 0
    workspace = Workspace(tmp_path / "w")
    certificate = workspace.open(Certificate, "mine")
    assert workspace.manifest("heads", "scores").parents["certificates/mine"] == certificate.about.content_hash
    code, out, _ = run(capsys, "doctor", str(folder), "--quick", "--name", "mine", "--json", *where)  # again, replaced
    assert code == 0
    assert {"part", "name", "verdict", "did", "expected", "came", "means"} == json.loads(out)[0].keys()


def test_a_failed_check_exits_1_and_says_what_it_means(folder, tmp_path, capsys):
    import torch

    from interp.models.loading import load_model
    from tests.fixtures.make_saes import saved

    workspace = Workspace(tmp_path / "w", create=True)
    sae, _ = principal(str(folder), "topk", load_model(str(folder)))
    sae.W_dec.data = sae.W_dec[torch.randperm(sae.d_sae, generator=torch.Generator().manual_seed(0))]
    saved(workspace, "shuffled", sae)
    code, out, _ = run(
        capsys, "doctor", str(folder), "--dictionary", "shuffled", "--quick", "--workspace", str(tmp_path / "w")
    )
    assert code == 1
    assert "FAILED learned" in out
    assert "it means: Its weights are not those that were trained" in out


def test_mistakes_exit_2_before_a_model_is_loaded(tmp_path, capsys):
    where = ["--workspace", str(tmp_path / "w")]
    Workspace(tmp_path / "w", create=True)
    assert run(capsys, "doctor", "no-such-model", *where)[0] == 2
    assert run(capsys, "doctor", "small:mlp-2l", "--dictionary", "missing", *where)[0] == 2
    assert run(capsys, "doctor", "small:mlp-2l", "--dictionary", "a", "--set", "b", *where)[0] == 2
    code, _, err = run(capsys, "doctor", "small:mlp-2l", "--dictionary", "checkpoints/layers.9", *where)
    assert code == 2
    assert "saes; checkpoints/layers.9 is a path" in err
    assert "import checkpoints/layers.9 --model small:mlp-2l --name NAME" in err
