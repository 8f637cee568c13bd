"""The default sparsity of a gated SAE finds planted features, on data of two shapes, and a third of it does not."""

from dataclasses import asdict

import pytest

from saes.evaluation.synthetic import (
    HOOK_POINT,
    Recovery,
    SyntheticConfig,
    SyntheticData,
    measure_recovery,
    write_synthetic,
)
from saes.kinds.config import GatedConfig, SAEConfig, TranscoderConfig
from saes.training.config import TrainConfig
from saes.training.train import train_sae
from saes.weights.folder import load_sae

DATA = {
    "sparse": SyntheticConfig(n_features=64, d=32, most_frequent=0.1, least_frequent=0.01),
    "hard": SyntheticConfig(n_features=64, d=24, correlation=0.3),
}

pytestmark = pytest.mark.usefixtures("one_thread")


def recovered(shape: str, folder, config: SAEConfig, tokens: int, seed: int) -> Recovery:
    data = SyntheticData(DATA[shape], seed=seed)
    recording = write_synthetic(data, folder / "recording", n_rows=60_000)
    settings = TrainConfig(tokens=tokens, batch_size=512, seed=seed, log_every=10_000)
    train_sae(recording, HOOK_POINT, config, settings, folder / "sae")
    return measure_recovery(load_sae(folder / "sae"), data, n_rows=8192)


@pytest.mark.parametrize(("shape", "seed"), [("sparse", 0), ("hard", 1)])
def test_the_default_finds_planted_features(tmp_path, shape, seed):
    found = recovered(shape, tmp_path, GatedConfig(d_sae=64), 200_000, seed)
    assert found.mcc > found.mcc_random + 0.2
    assert found.f1 > 0.4
    assert found.l0 < 4 * found.true_l0
    assert found.dead < 0.1


def test_a_third_of_it_finds_none(tmp_path):
    found = recovered("hard", tmp_path, GatedConfig(d_sae=64, l1_coefficient=0.1), 200_000, 1)
    assert found.mcc < found.mcc_random + 0.1
    assert found.l0 > 4 * found.true_l0


def test_a_transcoder_takes_the_default_of_the_kind_of_its_latents():
    def weight(kind: str, **settings) -> float:
        config = TranscoderConfig(target="x", selection=kind, **settings).selects()
        return asdict(config)["l1_coefficient"]

    assert (weight("gated"), weight("relu")) == (0.3, 0.1)
    assert weight("gated", l1_coefficient=0.7) == 0.7
