"""`workbench compare saes`: planted features from a recording on disk to the table and its artefact."""

import pytest
import torch

from interp.artifacts import read_json, verify, write_json
from interp.errors import CorruptError
from interp.workspace import Workspace
from saes.evaluation.sae_comparison import SAEComparison, SAEComparisonSettings
from saes.evaluation.synthetic import HOOK_POINT, SyntheticConfig, SyntheticData, write_synthetic
from saes.kinds.config import BatchTopKConfig, TopKConfig
from saes.training.config import TrainConfig
from saes.training.run import Job
from saes.training.train import train_many, train_sae

COMPARE = ("compare", "saes", "--threads", 1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    workspace = Workspace(tmp_path_factory.mktemp("workspace"), create=True)
    data = SyntheticData(SyntheticConfig(n_features=24, d=16))
    recording = write_synthetic(data, workspace.path("recording", "planted"), n_rows=8_000)
    settings = TrainConfig(tokens=40_000, batch_size=256, lr=1e-2, log_every=1000)
    configs = {"one": TopKConfig(d_sae=24, k=2), "two": BatchTopKConfig(d_sae=24, k=6)}
    jobs = [Job(sae=c, train=settings, folder=workspace.path("sae", name)) for name, c in configs.items()]
    for _ in train_many(recording, HOOK_POINT, jobs):
        pass
    again = TrainConfig(tokens=40_000, batch_size=256, lr=1e-2, log_every=1000, seed=1)
    train_sae(recording, HOOK_POINT, configs["one"], again, workspace.path("sae", "one-again"))
    yield workspace.root
    torch.set_num_threads(before)


def stored(root, name: str) -> SAEComparison:
    return Workspace(root).open(SAEComparison, name)


def line_of(name: str, out: str) -> str:
    return next(line for line in out.splitlines() if line.strip().startswith(f"{name} "))


def test_the_table_and_the_artefact_say_the_same(cli, root):
    out = cli(root, *COMPARE, "one", "two")
    found = stored(root, "compare-one-two")
    assert verify(found.folder) == []
    assert [row.name for row in found.rows] == ["one", "two", "pca", "coordinates", "untrained"]
    for row in found.rows:
        assert f"{row.matched.fvu:.4f}" in line_of(row.name, out)
        assert row.recovery is not None
        assert f"{row.recovery.mcc:.3f}" in line_of(row.name, out)
    assert found.headline() in out
    assert found.l0 == pytest.approx(2, abs=0.01)
    assert found.settings == SAEComparisonSettings(
        saes=("one", "two"), recording="planted", l0=None, contexts=0, match=False,
        heldout_fraction=0.1,
    )  # fmt: skip
    assert {"saes/one", "saes/two", "recordings/planted"} == set(found.about.parents)
    raw = read_json(found.folder / "rows.json")
    raw["value"][1]["own"]["fvu"] = None
    write_json(found.folder / "rows.json", raw)
    with pytest.raises(CorruptError, match=r"rows\.json: 1\.own\.fvu should be a valid number"):
        stored(root, "compare-one-two").table()


def test_l0_can_be_chosen(cli, root):
    cli(root, *COMPARE, "two", "--l0", 3, "--name", "three")
    row = stored(root, "three").rows[0]
    assert row.matched.l0 == pytest.approx(3, abs=0.01)
    assert row.own.l0 > 5


def test_shared_features_are_said_with_their_null(cli, root):
    printed = cli(root, *COMPARE, "one", "two", "--match", "--name", "matched")
    found = stored(root, "matched")
    assert found.shared.keys() == {"one, two"}
    each = found.shared["one, two"]
    assert -1 <= each.mean_cosine_random < each.mean_cosine <= 1
    assert f"one, two: {each}" in printed
    assert found.matches is not None
    rows = found.matches.rows()
    assert {row.pair for row in rows} == {"one, two"}
    assert sorted(row.first for row in rows) == sorted(row.second for row in rows) == list(range(24))
    assert sum(row.cosine for row in rows) / 24 == pytest.approx(each.mean_cosine, abs=1e-5)
    assert sum(row.random for row in rows) / 24 == pytest.approx(each.mean_cosine_random, abs=1e-5)


def test_runs_that_differ_only_in_their_seed_are_one_group(cli, root):
    printed = cli(root, *COMPARE, "one", "two", "one-again", "--name", "seeds")
    found = stored(root, "seeds")
    (group,) = found.groups
    assert (group.name, group.members) == ("one", ("one", "one-again"))
    scores = {row.name: row.scores()["F1"] for row in found.rows}
    mean, low, high = group.scores["F1"]
    assert mean == pytest.approx((scores["one"] + scores["one-again"]) / 2)
    assert low < min(scores["one"], scores["one-again"]) <= max(scores["one"], scores["one-again"]) < high
    (line,) = [line for line in printed.splitlines() if "one, 2 seeds: L0 " in line]
    assert f"F1 {mean:.3f} [{low:.3f}, {high:.3f}]" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "compare saes needs SAE [SAE ...]: Names of SAEs"),
        (["one", "tow"], "did you mean 'two'"),
        (["one", "neurons:blocks.0.mlp.hook_post"], "coordinates"),
        (["one", "--l0", "-1"], "l0 must be above 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(cli, root, arguments, expected):
    assert expected in cli(root, *COMPARE, *arguments, "--name", "refused", code=2)
    assert not (root / "sae-comparisons" / "refused.partial").exists()
