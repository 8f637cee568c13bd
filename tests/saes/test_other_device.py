"""A dictionary on another device than the recorded rows measures what it measures on the CPU."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from other_device import DEVICE, other_device
from planted import HOOK, random_recording
from test_absorption import dictionary, hierarchy
from test_model_difference import coordinates, simple_pair

from saes.evaluation.absorption import measure_absorption
from saes.evaluation.compare import compare
from saes.evaluation.crosscoder_latents import compare_models
from saes.evaluation.matching import match_features
from saes.evaluation.probing import ProbingConfig, planted_tasks, probe
from saes.evaluation.scores import AbsorptionConfig
from saes.evaluation.synthetic import HOOK_POINT, SyntheticConfig, SyntheticData, measure_recovery, write_synthetic
from saes.features._firings import Encoded, collect_together
from saes.features.sources import NeuronBasis
from saes.kinds.base import SAEMetadata, TopK, Weights
from saes.kinds.jumprelu import JumpReLUSAE
from saes.kinds.l1 import GatedSAE, ReLUSAE
from saes.kinds.topk import TopKSAE
from saes.kinds.transcoder import Transcoder
from saes.training.reconstruction import evaluate_on_recording

D, N = 16, 24

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data() -> SyntheticData:
    return SyntheticData(SyntheticConfig(n_features=N, d=D))


@pytest.fixture(scope="module")
def recording(data, tmp_path_factory):
    return write_synthetic(data, tmp_path_factory.mktemp("recordings") / "planted", n_rows=6000)


def kinds(data: SyntheticData) -> dict[str, Any]:
    weights = Weights(data.directions.T.contiguous(), torch.full((N,), -0.2), data.directions, data.mean)
    named: dict[str, Any] = {"metadata": SAEMetadata(hook_point=HOOK_POINT)}
    return {
        "relu": ReLUSAE(weights, **named),
        "topk": TopKSAE(weights, k=3, **named),
        "jumprelu": JumpReLUSAE(weights, threshold=torch.full((N,), 0.1), **named),
        "gated": GatedSAE(weights, r_mag=torch.zeros(N), b_mag=torch.zeros(N), **named),
        "transcoder": Transcoder(weights, activation=TopK(3), W_skip=torch.eye(D) / 10, **named),
    }


def numbers(value: Any) -> Any:
    """Everything that is a number, with names, in one order."""
    if isinstance(value, dict):
        return {name: numbers(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [numbers(each) for each in value]
    if isinstance(value, torch.Tensor | np.ndarray):
        return np.asarray(value).tolist()
    return value


def both(measure: Callable[..., Any], *saes: Any) -> tuple[Any, Any]:
    """What is measured with the dictionaries on the CPU, and on the other device."""
    here = measure(*saes)
    with other_device() as device:
        moved = [deepcopy(sae).to(device) for sae in saes]
        assert all(sae.device == device for sae in moved)
        there = measure(*moved)
    return numbers(here), numbers(there)


def assert_equal(pair: tuple[Any, Any]) -> None:
    """Compare all numbers, nested ones too."""
    here, there = pair
    if isinstance(here, dict):
        assert here.keys() == there.keys()
        for name in here:
            assert_equal((here[name], there[name]))
    elif isinstance(here, list):
        assert len(here) == len(there)
        for each in zip(here, there, strict=True):
            assert_equal(each)
    elif isinstance(here, float):
        assert there == pytest.approx(here, rel=1e-4, abs=1e-6, nan_ok=True)
    else:
        assert here == there


def test_the_played_device_refuses_what_a_real_one_would(data):
    sae = kinds(data)["topk"]
    x = torch.randn(5, D)
    expected = sae(x)
    with other_device() as device:
        moved = deepcopy(sae).to(device)
        assert moved(x.to(device)).device == DEVICE
        assert torch.allclose(moved(x.to(device)).cpu(), expected, atol=1e-6)
        with pytest.raises(RuntimeError, match="same device"):
            moved(x)
        with pytest.raises((RuntimeError, TypeError)):
            moved(x.to(device)).numpy()
    assert torch.equal(sae(x), expected)


@pytest.mark.parametrize("kind", ["relu", "topk", "jumprelu", "gated", "transcoder"])
def test_reconstruction(kind, data, recording):
    assert_equal(both(lambda sae: asdict(evaluate_on_recording(sae, recording)), kinds(data)[kind]))


def test_statistics_of_firings(data, recording):
    def measure(sae: Any) -> Any:
        found = collect_together([Encoded(sae, HOOK_POINT)], recording, window=3, n_top=4, seed=0)[0]
        return {**found.totals._asdict(), "top": found.top._asdict(), "sample": found.sample._asdict()}

    assert_equal(both(measure, kinds(data)["topk"]))


def test_statistics_of_neurons_whose_model_is_elsewhere(tmp_path):
    recording = random_recording(tmp_path / "rec", d=D)
    W_out = torch.randn(D, 8)
    here = collect_together([Encoded(NeuronBasis(D, HOOK, W_out), HOOK)], recording, window=3, n_top=4, seed=0)[0]
    with other_device() as device:
        there = NeuronBasis(D, HOOK, W_out.to(device))
        assert there.decoder_directions.device == DEVICE
        found = collect_together([Encoded(there, HOOK)], recording, window=3, n_top=4, seed=0)[0]
    assert_equal((numbers(here.totals._asdict()), numbers(found.totals._asdict())))


def test_comparison_with_baselines_and_truth(data, recording):
    def measure(*saes: Any) -> Any:
        return asdict(compare(dict(zip("ab", saes, strict=True)), recording, l0=2.0, truth=data))

    assert_equal(both(measure, kinds(data)["relu"], kinds(data)["topk"]))


def test_recovery_and_matching(data):
    sae = kinds(data)["relu"]
    assert_equal(both(lambda each: asdict(measure_recovery(each, data, n_rows=2000)), sae))
    assert_equal(both(lambda *each: match_features(*each).to_records(), sae, kinds(data)["topk"]))


def test_probing(data, recording):
    config = ProbingConfig(n_train=800, n_test=800, seeds=(0,), ks=(1, 2))

    from interp.artifacts import as_json

    def measure(sae: Any) -> Any:
        return as_json(probe({"sae": sae}, recording, planted_tasks(recording, 2), config=config))

    assert_equal(both(measure, kinds(data)["topk"]))


def test_absorption():
    examples, _, directions = hierarchy(0.3, n=1500)

    def measure(sae: Any) -> Any:
        absorption = measure_absorption({"a": sae}, examples, AbsorptionConfig(seeds=(0,)))
        return {name: asdict(score) for name, score in absorption.items()}

    assert_equal(both(measure, dictionary(directions, 1.0)))


def test_latents_of_one_model(tmp_path):
    recordings = simple_pair(tmp_path, in_base=0.25)
    width = recordings[0].d(HOOK)
    sae = coordinates([0.0] + [1.0] * (width - 1), [1.0] * width)
    assert_equal(both(lambda each: compare_models(each, recordings, split="all").to_records(), sae))
