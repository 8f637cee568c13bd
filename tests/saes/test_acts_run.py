"""A run puts dictionaries where the model is, and prices an answer by the pace of others like it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from make_features import write_features
from make_monitor import monitor
from make_saes import saved
from other_device import DEVICE, other_device

from interp.acts import Price
from interp.artifacts import save_artefact
from interp.errors import MismatchError
from interp.models.adapter import weight_hash
from interp.models.loading import load_model
from interp.workspace import Workspace
from saes.acts.monitors import RunMonitor
from saes.acts.run import Run, TokenPace
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.topk import TopKSAE

MODEL, HOOK = "small:mlp-2l", "blocks.1.hook_resid_post"
D_SAE = 40

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """A small model's dictionary of random directions, and its features."""
    made, model = Workspace(tmp_path / "workspace", create=True), load_model(MODEL)
    d = model.cfg.d_model
    W_dec = torch.randn(D_SAE, d, generator=torch.Generator().manual_seed(0))
    about = SAEMetadata(model=MODEL, weight_hash=weight_hash(model), hook_point=HOOK)
    weights = Weights(W_dec.T.contiguous(), torch.zeros(D_SAE), W_dec, torch.zeros(d))
    saved(made, "demo", TopKSAE(weights, k=4, metadata=about))
    write_features(made, "demo", [], model=MODEL, hook_point=HOOK)
    return made


def test_a_dictionary_is_where_the_model_is(workspace, monkeypatch):
    here, x = Run(workspace).described_sae("demo"), torch.randn(5, 64)
    assert str(here.device) == "cpu"
    monkeypatch.setattr("interp.models.loading.pick_device", lambda *_, **__: str(DEVICE))
    with other_device() as device:
        run = Run(workspace)
        there = run.described_sae("demo")
        assert there.device == next(run.model(MODEL).parameters()).device == DEVICE
        acts = there.encode(x.to(device)).cpu()
    assert torch.allclose(acts, here.encode(x), atol=1e-5)


def test_a_monitor_scores_the_residual_stream_of_its_own_weights(workspace):
    model = load_model(MODEL)
    made = replace(monitor(MODEL, weight_hash(model)), weights=np.ones(model.cfg.d_model))
    made = replace(made, settings=replace(made.settings, hook_point=HOOK))
    run = Run(workspace)
    save_artefact(made, workspace.path("monitor", "mine"))
    save_artefact(monitor(MODEL, "0" * 64), workspace.path("monitor", "other"))
    watched = RunMonitor(monitor="mine", text="one").measure(run)
    read = run.reading("one", MODEL, False).residuals[2].double()
    assert watched.scores[1:] == pytest.approx((read.sum(1) - 1)[1:].tolist(), abs=1e-4)
    with pytest.raises(MismatchError, match="make the monitor again"):
        RunMonitor(monitor="other", text="one").measure(run)


def test_each_model_and_kind_of_pass_has_its_own_pace(monkeypatch):
    """Ten tokens take 1 s in one model, 4 s in the other, and 20 s with gradients: no price is that of another."""
    clock = [0.0]
    monkeypatch.setattr("saes.acts.run.time.perf_counter", lambda: clock[0])
    pace, seen = TokenPace(), []
    small, large, backward = (
        Price({"the feature": 1, "random directions": 4}, 10, model, passes)
        for model, passes in (("small", "steer"), ("large", "steer"), ("small", "patch"))
    )
    for price, seconds in ((small, 1.0), (large, 4.0), (backward, 20.0)):
        assert pace.of(price).seconds is None
        done = pace.counting(price, seen.append, price.arm)
        clock[0] += seconds
        done(10)
    assert [pace.of(price).seconds for price in (small, large, backward)] == pytest.approx([5, 20, 100])
    assert seen == [f"random directions: 1 of 4, {left} left" for left in ("4 seconds", "16 seconds", "80 seconds")]
