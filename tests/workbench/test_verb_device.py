"""`--device`: the dictionary of a verb goes where it says, rows follow batch by batch, and the scores stay."""

import pytest
import torch
from other_device import DEVICE, other_device

from interp.workspace import Workspace
from saes.acts.run import Run
from saes.evaluation.evaluation import SAEEvaluation
from saes.evaluation.latent_comparison import LatentComparison
from saes.evaluation.sae_comparison import SAEComparison
from saes.evaluation.scores import Probing
from saes.evaluation.synthetic import HOOK_POINT, SyntheticConfig, SyntheticData, write_synthetic
from saes.kinds.base import OneLayerSAE
from saes.kinds.config import CrosscoderConfig, TopKConfig
from saes.training.config import TrainConfig
from saes.training.train import train_sae
from workbench.__main__ import main


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two recordings of planted features and three hardly trained dictionaries."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    workspace = Workspace(tmp_path_factory.mktemp("workspace"), create=True)
    data = SyntheticData(SyntheticConfig(n_features=24, d=16))
    base, tuned = (write_synthetic(data, workspace.path("recording", n), n_rows=6_000) for n in ("base", "tuned"))
    settings = TrainConfig(tokens=6_000, batch_size=256, lr=1e-2, log_every=1000)
    for name, k in (("one", 2), ("two", 6)):
        train_sae(base, HOOK_POINT, TopKConfig(d_sae=24, k=k), settings, workspace.path("sae", name))
    train_sae([base, tuned], HOOK_POINT, CrosscoderConfig(d_sae=24, k=2), settings, workspace.path("sae", "pair"))
    yield workspace.root
    torch.set_num_threads(before)


@pytest.fixture
def seen(monkeypatch):
    """Devices on which dictionaries encode, on a machine whose one CUDA device is played by `other_device`."""
    devices: set[str] = set()
    encode = OneLayerSAE.encode_sparse

    def spy(self, x):
        devices.add(str(x.device))
        return encode(self, x)

    monkeypatch.setattr(OneLayerSAE, "encode_sparse", spy)
    pick = "interp.devices.pick_device"
    monkeypatch.setattr(pick, lambda device=None, **_: "cpu" if device == "cpu" else str(DEVICE))
    return devices


def on_both(root, seen, verb: list[str]) -> None:
    """Run a verb on the CPU, which makes `here`, and on the other device, `there`."""
    options = ["--workspace", str(root), "--threads", "1"]
    assert main([*verb, "--name", "here", "--device", "cpu", *options]) == 0
    assert seen == {"cpu"}
    seen.clear()
    with other_device():
        assert main([*verb, "--name", "there", "--device", "cuda", *options]) == 0
    assert seen == {str(DEVICE)}


def test_evaluate(root, seen):
    on_both(root, seen, ["evaluate", "one", "--contexts", "0", "--probing", "--probe-seeds", "1"])
    here, there = (Workspace(root).open(SAEEvaluation, name) for name in ("here", "there"))
    assert there.heldout.fvu == pytest.approx(here.heldout.fvu, rel=1e-5)
    assert isinstance(here.probing, Probing)
    assert isinstance(there.probing, Probing)
    for one, other in zip(here.probing.means, there.probing.means, strict=True):
        assert other.accuracy.estimate == pytest.approx(one.accuracy.estimate, abs=1e-3)


def test_compare_saes(root, seen):
    verb = ["compare", "saes", "one", "two", "--match"]
    on_both(root, seen, verb)
    here, there = (Workspace(root).open(SAEComparison, name) for name in ("here", "there"))
    for one, other in zip(here.rows, there.rows, strict=True):
        assert other.matched.fvu == pytest.approx(one.matched.fvu, rel=1e-4), one.name
        assert one.recovery is not None
        assert other.recovery is not None
        assert other.recovery.mcc == pytest.approx(one.recovery.mcc, rel=1e-4)


def test_compare_latents(root, seen):
    on_both(root, seen, ["compare", "latents", "pair"])
    here, there = (Workspace(root).open(LatentComparison, name) for name in ("here", "there"))
    assert len(here.latents) == 24
    assert here.counts == there.counts
    assert here.n_tokens == there.n_tokens


def test_a_dictionary_opens_on_the_device_asked_for(root):
    workspace = Workspace(root)
    for device, expected in ((None, "cpu"), ("cpu", "cpu"), ("mps", "cpu"), ("meta", "meta")):
        run = Run(workspace, device=lambda device=device: device)
        assert run.sae("one").device.type == expected
        assert run.dictionary("one", None).load_sae().device.type == expected


@pytest.mark.parametrize(
    "verb",
    [
        ["evaluate", "one"],
        ["compare", "saes", "one"],
        ["compare", "latents", "pair"],
        ["dynamics", "grok"],
        ["dynamics", "induction"],
    ],
)
def test_a_missing_cuda_device_is_named_before_the_work(verb, root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # as on a machine without one
    assert main([*verb, "--workspace", str(root), "--name", "refused", "--device", "cuda"]) == 2
    assert "torch sees no CUDA device; use --device cpu" in capsys.readouterr().err
