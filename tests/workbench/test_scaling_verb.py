"""`workbench compare sizes`: from the finished runs of a sweep to the fit and its artefact, and what is refused."""

import math

import pytest
from make_saes import HOOK_POINT, final_fvu, finished, imported

from interp.artifacts import verify
from interp.errors import ConfigError
from interp.workspace import Workspace
from saes.evaluation.scaling import SizeLaw, SizeLawSettings, runs_of

GRID = [(n, k) for n in (512, 1024, 2048) for k in (16, 32)]


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace", create=True)
    for n, k in GRID:
        finished(workspace, f"sweep-d{n}-k{k}", n, k)
    finished(workspace, "flat", 512, 40, kind="relu")
    imported(workspace, "peer")
    return workspace


def test_the_sweep_is_found_fitted_and_written(cli, workspace):
    out = cli(workspace, "compare", "sizes", "--n-bootstrap", 20)
    folder = workspace.path("size_law", "sizes-topk")
    found = workspace.open(SizeLaw, "sizes-topk")
    assert verify(folder) == []
    assert {(run.n, run.k) for run in found.runs} == set(GRID)
    assert set(found.about.parents) == {f"saes/sweep-d{n}-k{k}" for n, k in GRID}
    assert found.settings == SizeLawSettings(
        recording="demo", hook_point=HOOK_POINT, kind="topk", tokens=1_000_000, n_bootstrap=20
    )
    for k, each in found.exponents.items():  # the planted law of the fixture
        assert each.estimate == pytest.approx(-0.2 - 0.01 * math.log(k), abs=1e-6)
    assert found.curves[0].loss.estimate == pytest.approx(found.law.loss(found.curves[0].n, found.curves[0].k))
    assert all(sentence in out for sentence in found.details())


def test_the_loss_of_a_run_is_its_heldout_fvu(workspace):
    assert {(run.name, run.loss) for run in runs_of(workspace)} == {
        (f"sweep-d{n}-k{k}", final_fvu(n, k)) for n, k in GRID
    }


def test_runs_trained_otherwise_are_not_mixed_in(workspace):
    finished(workspace, "longer", 4096, 16, tokens=2_000_000)
    with pytest.raises(ConfigError, match=r"tokens \(1000000 and 2000000\)"):
        runs_of(workspace)
    assert len(runs_of(workspace, tokens=1_000_000)) == len(GRID)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sweep-d512-k16", "sweep-d1024-k16"], "at least 3 sizes"),
        (["sweep-d512-k61"], "did you mean 'sweep-d512-k16'"),
        (["peer", "sweep-d512-k16"], "peer cannot be part"),
        (["--kind", "gated"], "no finished gated"),
        (["--recording", "other"], "train a sweep"),
        (["--n-bootstrap", "3"], "at least 20"),
    ],
)
def test_what_cannot_be_fitted_is_refused_and_leaves_nothing(cli, workspace, arguments, says):
    assert says in cli(workspace, "compare", "sizes", *arguments, code=2)
    assert not (workspace.root / "size-laws").exists()
