"""Training sets: one reading for all layers, better than nothing learned, resumed to the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from interp.artifacts import LOG, open_artefact, partial_path, read_manifest, verify
from interp.errors import ConfigError, MismatchError, MissingError
from interp.models.adapter import mlp_hook_points
from interp.models.small import SmallConfig, build_small
from interp.recording.live import LiveRecording
from interp.recording.record import record
from interp.recording.recorded import RecordConfig
from saes.kinds.base import ReLU, SAEMetadata, Weights
from saes.kinds.clt import decode, decoder_norms
from saes.kinds.config import BatchTopKConfig, CrossLayerConfig, GatedConfig, JumpReLUConfig, TopKConfig
from saes.kinds.transcoder import Transcoder
from saes.sets import PerLayerSet, read_set
from saes.sets.stored import SetTraining, StoredSet
from saes.sets.train import evaluate_in_model, evaluate_layers, train_set, training
from saes.training.config import TrainConfig

D_SAE, K = 48, 6
SHORT = TrainConfig(tokens=6_000, batch_size=256, checkpoint_every=5, log_every=4, heldout_fraction=0.2)
LONG = replace(SHORT, tokens=60_000, log_every=50, lr=3e-3)
KINDS = {
    "batchtopk, skip": (BatchTopKConfig(d_sae=D_SAE, k=K), True),
    "topk": (TopKConfig(d_sae=D_SAE, k=K), False),
    "jumprelu": (JumpReLUConfig(d_sae=D_SAE, k=K), False),
    "gated": (GatedConfig(d_sae=D_SAE), False),
    "across, jumprelu": (CrossLayerConfig(d_sae=D_SAE, k=K), False),
    "across, batchtopk": (CrossLayerConfig(d_sae=D_SAE, k=K, selection="batchtopk"), True),
}

pytestmark = pytest.mark.usefixtures("one_thread")


def live(model, documents, folder: Path, n: int = 3000) -> LiveRecording:
    config = RecordConfig(tokens=n, context_length=32, batch_size=4, shard_contexts=16, dtype="float32", live=True)
    record(model, documents, folder, config, hook_points=mlp_hook_points(model))
    return LiveRecording(folder, model=model)


@pytest.fixture(scope="module")
def recording(tiny_model, text_documents, tmp_path_factory) -> LiveRecording:
    return live(tiny_model, text_documents, tmp_path_factory.mktemp("recordings") / "mlps")


def files(folder: Path) -> dict[str, torch.Tensor]:
    return {f"{path.name} {k}": t for path in folder.glob("*.safetensors") for k, t in load_file(path).items()}


def assert_same(one: Path, other: Path) -> None:
    mine, theirs = files(one), files(other)
    assert mine
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert read_manifest(one).content_hash == read_manifest(other).content_hash


QUICK = ("batchtopk, skip", "across, jumprelu")
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]


@pytest.mark.parametrize("name", EACH)
def test_every_kind_learns_and_is_one_artefact(recording, name, tmp_path):
    config, skip = KINDS[name]
    found = train_set(recording, SetTraining(config, LONG, skip=skip), tmp_path / "set")
    stored = open_artefact(StoredSet, tmp_path / "set")
    scores, run = stored.scores, stored.training
    assert run is not None
    assert verify(tmp_path / "set") == []
    assert [row.layer for row in scores.layers] == [0, 1]
    assert all(row.fvu < 0.6 for row in scores.layers)
    assert found.skip(0) is None or skip
    loss = scores.loss
    assert set(loss) == {"set", "untrained", "neurons"}
    assert loss["set"].ce_clean == loss["untrained"].ce_clean
    assert loss["set"].kl_spliced < 0.7 * loss["untrained"].kl_spliced
    logs = sorted(path.relative_to(tmp_path / "set" / "runs") for path in (tmp_path / "set" / "runs").rglob("*.*"))
    assert logs == ([Path(LOG)] if "across" in name else [Path("layer_0") / LOG, Path("layer_1") / LOG])
    lines = [json.loads(line) for line in (tmp_path / "set" / "runs" / logs[0]).read_text().splitlines()]
    assert lines[-1]["tokens"] == run.tokens_seen
    again = evaluate_layers(found, recording, heldout_fraction=LONG.heldout_fraction)
    assert [again[n].fvu for n in (0, 1)] == [row.fvu for row in scores.layers]
    few = evaluate_layers(found, recording, heldout_fraction=LONG.heldout_fraction, batch_size=16, limit=20)
    assert (few[0].n_tokens, few[1].n_tokens) == (32, 32)  # whole batches
    if name != "gated" and name != "across, jumprelu":  # their penalties are weighed against the error
        assert scores.l0 == pytest.approx(K, rel=0.2)


def test_the_model_runs_once_for_all_layers(recording, tmp_path, monkeypatch):
    from interp.recording import record as compute

    contexts = []
    honest = compute.compute_activations
    monkeypatch.setattr(
        compute, "compute_activations", lambda c, text, **k: contexts.append(len(text.tokens)) or honest(c, text, **k)
    )
    for _ in training(recording, SetTraining(KINDS["topk"][0], SHORT), tmp_path / "set"):
        pass
    whole = recording.n_rows / 32
    epochs = SHORT.tokens / (0.8 * recording.n_real)
    assert sum(contexts) < whole * (epochs + 3.5)  # the steps; the first batch twice, samples, and held-out rows


@pytest.mark.parametrize("name", QUICK)
def test_an_interrupted_run_resumes_to_the_same_bits(recording, name, tmp_path):
    config, skip = KINDS[name]
    train_set(recording, SetTraining(config, SHORT, skip=skip), tmp_path / "whole")
    run = training(recording, SetTraining(config, SHORT, skip=skip), tmp_path / "set")
    for _ in range(4):
        next(run)
    run.close()
    assert partial_path(tmp_path / "set").exists()
    with pytest.raises(MismatchError, match="d_sae"):
        next(training(recording, SetTraining(replace(config, d_sae=40), SHORT, skip=skip), tmp_path / "set"))
    train_set(recording, SetTraining(config, SHORT, skip=skip), tmp_path / "set")
    assert_same(tmp_path / "set", tmp_path / "whole")


KILLED = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from interp.recording.live import open_recording
from saes.sets.stored import SetTraining
from saes.sets.train import training
from test_sets_train import KINDS, SHORT
config, skip = KINDS[sys.argv[3]]
recording, plan = open_recording(sys.argv[1], device="cpu"), SetTraining(config, SHORT, skip=skip)
for layer, metrics in training(recording, plan, Path(sys.argv[2])):
    print(layer, metrics.step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["batchtopk, skip", "across, batchtopk"])
def test_a_killed_run_resumes_to_the_same_bits(text_documents, tiny_model, name, tmp_path):
    folder = live(tiny_model, text_documents, tmp_path / "mlps").folder
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def run(target: str, kill_after: int | None) -> None:
        words = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / target), name]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
        for line in process.stdout:
            if kill_after is not None and int(line.split()[1]) >= kill_after:
                time.sleep(0.02)  # somewhere inside a later step
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait(timeout=120)

    run("whole", None)
    run("set", 12)
    assert partial_path(tmp_path / "set").exists()
    run("set", None)
    assert_same(tmp_path / "set", tmp_path / "whole")


def test_transcoders_that_are_the_mlps_explain_everything(text_documents, tmp_path):
    """A ReLU MLP is a transcoder: with its own weights nothing is unexplained, and the model's loss is unchanged."""
    config = SmallConfig(n_layers=2, d_mlp=96, act_fn="relu")
    model = build_small(config, seed=1, device="cpu", dtype=torch.float32)
    recording = live(model, text_documents, tmp_path / "mlps")
    made = {}
    for layer, block in enumerate(model.blocks):
        mlp = block.mlp.original_component
        weights = (mlp.fc_in.weight.T, mlp.fc_in.bias, mlp.fc_out.weight.T, mlp.fc_out.bias)
        made[layer] = Transcoder(Weights(*(w.detach().clone() for w in weights)), activation=ReLU())
    about = SAEMetadata(model=recording.model, weight_hash=recording.weight_hash)
    true = PerLayerSet(made, reads="mlp.hook_in", writes="hook_mlp_out", about=about)
    scores = evaluate_layers(true, recording)
    assert max(each.fvu for each in scores.values()) < 1e-10
    tokens, documents = recording.contexts_and_documents(split="heldout", limit=4)
    how = {"means": {n: recording.stats(true.hook_point_out(n)).mean for n in (0, 1)}, "documents": documents}
    loss = evaluate_in_model(true, model, tokens, l0={n: scores[n].l0 for n in (0, 1)}, **how)
    assert loss["set"].kl_spliced == pytest.approx(0, abs=1e-7)
    assert loss["set"].ce_mean - loss["set"].ce_clean != 0
    assert loss["neurons"].kl_spliced > 1e-6  # as many neurons as are active on average, not on each token


def test_wrong_requests_are_refused(recording, tmp_path):
    config = KINDS["topk"][0]
    with pytest.raises(MissingError, match=r"no blocks\.5\.mlp\.hook_in"):
        next(training(recording, SetTraining(config, SHORT, layers=(0, 5)), tmp_path / "a"))
    with pytest.raises(ConfigError, match="record MLP inputs and outputs"):
        next(training(recording, SetTraining(config, SHORT, reads="hook_resid_mid"), tmp_path / "a"))
    with pytest.raises(ConfigError, match="counted from 0"):
        next(training(recording, SetTraining(CrossLayerConfig(d_sae=D_SAE, k=K), SHORT, layers=(1,)), tmp_path / "a"))
    train_set(recording, SetTraining(config, SHORT, layers=(1,)), tmp_path / "one")
    assert read_set(tmp_path / "one").layers == (1,)
    with pytest.raises(ConfigError, match="already there"):
        next(training(recording, SetTraining(config, SHORT, layers=(1,)), tmp_path / "one"))


def test_cross_layer_arithmetic_by_hand():
    """Two layers: blocks 0->0, 0->1, 1->1."""
    W_dec = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]], [[3.0, 4.0]]])
    acts, b_dec = torch.tensor([[[10.0]], [[1.0]]]), torch.tensor([[0.5, 0.5], [0.0, 0.0]])
    assert decode(acts, W_dec, b_dec).tolist() == [[[10.5, 0.5]], [[3.0, 24.0]]]
    assert torch.allclose(decoder_norms(W_dec, 2), torch.tensor([[5.0**0.5], [5.0]]))
