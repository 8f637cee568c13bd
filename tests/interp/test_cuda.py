"""A GPU computes what the CPU computes, within stated tolerances. Skipped, with the reason, where there is none.

Float32 sums of another order differ by about 1e-6 of their size; 1e-4 leaves room for the layers of a model.
"""

import copy
import json

import pytest
import torch

from interp.devices import DEVICE_TOLERANCE, agrees_with_cpu, pick_device
from interp.models.loading import load_model
from interp.recording.record import record
from interp.recording.recorded import RecordConfig
from interp.recording.store import Recording
from interp.seeds import make_generator

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine")

CARD = "cuda"
RTOL = 1e-4
MODEL = "small:mlp-2l"
AT = "blocks.1.hook_resid_pre"


@pytest.fixture(scope="module")
def pair():
    """The same model on both devices."""
    return [load_model(MODEL, device=device) for device in ("cpu", CARD)]


def assert_close(here: torch.Tensor, there: torch.Tensor, rtol: float = RTOL) -> None:
    """Compare by the size of the whole, in which single values near zero do not count."""
    assert float((there.cpu().float() - here.float()).norm()) <= rtol * float(here.float().norm())


def test_the_card_agrees_with_the_cpu_and_is_used_unasked(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    assert agrees_with_cpu(CARD)
    [difference] = json.loads((tmp_path / "devices.json").read_text()).values()
    assert difference < DEVICE_TOLERANCE / 10
    assert pick_device() == CARD


def test_float32_products_are_not_rounded_to_tf32(monkeypatch) -> None:
    monkeypatch.delenv("INTERP_TF32", raising=False)
    device = pick_device(CARD)
    a = torch.randn(512, 512, generator=make_generator(0, "a"))
    assert_close(a.double() @ a.double().T, a.to(device) @ a.to(device).T, rtol=1e-6)  # TF32 gives about 3e-4
    ones = torch.ones(1, 65_536, dtype=torch.bfloat16, device=device)
    assert float(ones @ ones.T) == 65_536  # summed in float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recordings_agree(dtype, text_documents, tmp_path) -> None:
    rows = []
    for name, device in (("here", "cpu"), ("there", CARD)):
        model = load_model(MODEL, device=device, dtype=dtype)
        settings = RecordConfig(tokens=1_000, context_length=32, dtype="float32")
        record(model, text_documents, tmp_path / name, settings, hook_points=[AT])
        rows.append(Recording(tmp_path / name).activation_shard(AT, 0))
    assert_close(*rows, rtol=RTOL if dtype == "float32" else 0.02)


def test_a_topk_step_agrees() -> None:
    from saes.kinds.base import SAEMetadata, Weights
    from saes.kinds.topk import TopKSAE

    generator = make_generator(0, "dictionary")
    W = torch.nn.functional.normalize(torch.randn(512, 64, generator=generator), dim=1)
    weights = Weights(W.T.contiguous(), torch.zeros(512), W, torch.zeros(64))
    x = torch.randn(256, 64, generator=generator)
    here = TopKSAE(weights, k=8, metadata=SAEMetadata(hook_point=AT))
    there = copy.deepcopy(here).to(CARD)
    same = (here.encode(x) > 0) == (there.encode(x.to(CARD)).cpu() > 0)
    assert float(same.all(1).float().mean()) > 0.99, "near ties may fall the other way"
    assert_close(here(x)[same.all(1)], there(x.to(CARD)).cpu()[same.all(1)])


def test_a_training_step_agrees(tmp_path) -> None:
    from planted import HOOK, random_recording

    from saes.kinds.config import TopKConfig
    from saes.training.config import TrainConfig
    from saes.training.train import train_sae
    from saes.weights.folder import load_sae

    recording = random_recording(tmp_path / "rec", d=16)
    settings = TrainConfig(tokens=512, batch_size=128, log_every=100)
    for name, device in (("here", "cpu"), ("there", CARD)):
        train_sae(recording, HOOK, TopKConfig(d_sae=32, k=4), settings, tmp_path / name, device=device)
    here, there = (load_sae(tmp_path / name) for name in ("here", "there"))
    assert_close(here.W_dec, there.W_dec, rtol=1e-3)  # four steps of Adam


def test_the_edges_of_an_attribution_graph_agree(pair) -> None:
    from interp.tracing.graph import TraceConfig
    from interp.tracing.replacement import Neurons
    from interp.tracing.trace import trace

    tokens, config = torch.tensor([[0, 5, 9, 5]]), TraceConfig(effects=0)
    here, there = (trace(model, tokens.to(model.cfg.device), Neurons(50), config) for model in pair)
    weights = []
    for graph in (here, there):
        names, edges = [node.id for node in graph.nodes], graph.edges
        rows = zip(edges.source, edges.target, edges.weight, strict=True)
        weights.append({(names[source], names[target]): weight for source, target, weight in rows})
    shared = sorted(weights[0].keys() & weights[1].keys())
    assert len(shared) > 0.98 * max(map(len, weights)), "edges at the threshold may fall the other way"
    assert_close(*(torch.tensor([float(each[edge]) for edge in shared]) for each in weights), rtol=1e-3)


def test_a_stream_of_random_numbers_is_seeded_on_its_device() -> None:
    first, again, other = (
        torch.randn(8, device=CARD, generator=make_generator(seed, "noise", device=CARD)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
