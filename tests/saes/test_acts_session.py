"""A session puts dictionaries where the model is, and prices an answer by the pace of others like it."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from make_features import write_features
from make_monitor import monitor
from make_saes import saved
from other_device import DEVICE, other_device

from interp.acts import Price
from interp.artifacts import Table, save_artefact
from interp.errors import MismatchError, PromptError, UnknownNameError
from interp.lenses.judged_readings import JudgedReadings, ReadingExample, ReadingScore, ReadingsSettings
from interp.lenses.patchscope import patchscope
from interp.models.adapter import weight_hash
from interp.models.loading import load_model
from interp.workspace import Workspace
from saes.acts import session
from saes.acts.monitors import RunMonitor
from saes.acts.prompt import Patchscope, ReadLayers, judgements
from saes.acts.session import Session, TokenPace
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.topk import TopKSAE

MODEL, HOOK = "small:mlp-2l", "blocks.1.hook_resid_post"
OTHER = "blocks.0.hook_resid_post"
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
    here, x = Session(workspace, any_model=True).sae(MODEL, "demo"), torch.randn(5, 64)
    assert str(here.device) == "cpu"
    monkeypatch.setattr("interp.models.loading.pick_device", lambda *_, **__: str(DEVICE))
    with other_device() as device:
        run = Session(workspace, any_model=True)
        there = run.sae(MODEL, "demo")
        assert there.device == next(run.model(MODEL).parameters()).device == DEVICE
        acts = there.encode(x.to(device)).cpu()
    assert torch.allclose(acts, here.encode(x), atol=1e-5)


def test_a_patchscope_says_whether_such_readings_come_from_the_activation(workspace):
    """The controls are its own texts; what was judged at this layer of these weights is said, also of the lens."""
    run, digest = Session(workspace, any_model=True), weight_hash(load_model(MODEL))
    asked = Patchscope(text="one two three", model=MODEL, layer=1, after=3, n_new=4)
    found = asked.measure(run)
    assert (found.token, found.hook_point, found.judged, found.said) == ("e", HOOK, None, "")
    assert found.other in "one two three"
    model = run.model(MODEL)
    assert found.empty == patchscope(model, None, HOOK, n_new=4)[0]
    assert found.prompt == patchscope(model, None, HOOK, n_new=4, filled="e")[0]
    row = run.reading("one two three", MODEL, False).residuals[2][3:4]
    assert found.reading == patchscope(model, row, HOOK, n_new=4)[0]
    numbers = dict.fromkeys([f.name for f in fields(ReadingScore)[2:-1]], 0.25)
    scores = [
        ReadingScore(kind=kind, hook_point=HOOK, **numbers, shown=shown)
        for kind, shown in (("patchscope identity", True), ("logit lens", False), ("Jacobian lens", True))
    ]
    kinds = {"patchscope identity": "", "logit lens": "", "Jacobian lens": "of another lens"}
    settings = ReadingsSettings(
        model=MODEL, weight_hash=digest, source="corpus:x", source_hash="", hook_points=(HOOK,), kinds=kinds,
        new_tokens=4,
    )  # fmt: skip
    table, none = Table.of(ReadingScore, scores), Table.of(ReadingExample, [])
    judged = JudgedReadings(settings=settings, documents=9, scores=table, examples=none)
    save_artefact(judged, workspace.path("readings", "mine"))
    elsewhere = replace(settings, hook_points=(OTHER,))
    newer = JudgedReadings(settings=elsewhere, documents=9, scores=Table.of(ReadingScore, []), examples=none)
    save_artefact(newer, workspace.path("readings", "newer"))
    again = asked.measure(run)
    assert again.judged
    assert again.said.startswith("Comes from the activation: on 9 documents it adds 0.250")
    lens = ReadLayers(text="one two three", model=MODEL, start=1, stop=2).measure(run)
    assert [words[:9] for words in lens.said] == ["", "", "Not shown"]
    assert replace(asked, n_new=5).measure(run).judged is None, "five tokens were not judged"
    assert judgements(run, MODEL, "Jacobian lens", [HOOK], version="of this lens") == [(None, "")]
    with pytest.raises(UnknownNameError, match="the last one is 1"):
        Patchscope(text="one two three", model=MODEL, layer=2).measure(run)
    with pytest.raises(PromptError, match=r"has one \{\}"):
        Patchscope(text="one two three", model=MODEL, layer=1, target="none").measure(run)


def test_a_monitor_scores_the_residual_stream_of_its_own_weights(workspace):
    model = load_model(MODEL)
    made = replace(monitor(MODEL, weight_hash(model)), weights=np.ones(model.cfg.d_model))
    made = replace(made, settings=replace(made.settings, hook_point=HOOK))
    run = Session(workspace, any_model=True)
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
    monkeypatch.setattr(session.time, "perf_counter", lambda: clock[0])
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
