"""A kind of one's own, as docs/howto/own-kind.md says: its class, its commands, and what is refused on the way."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train_kinds import HOOK, LONG, N_FEATURES, directions, heldout_of, mcc, planted

from interp.artifacts import open_artefact
from interp.errors import ConfigError, CorruptError, MismatchError, MissingError
from interp.workspace import Workspace
from saes.kernels._plain import PlainOps
from saes.kernels.autograd import AutogradSettings, AutogradStepper
from saes.kernels.state import TrainState
from saes.kernels.step import Stepper, StepSettings
from saes.kinds.autograd import AutogradKind, DictionarySizes, affine_parts
from saes.kinds.config import ReLUConfig
from saes.kinds.own import own_config, own_kinds
from saes.kinds.registry import autograd_of, recipe_of
from saes.training.config import TrainConfig
from saes.training.stored import StoredSAE
from saes.training.train import train, train_sae
from saes.weights.folder import WEIGHTS, load_sae
from saes.weights.read import load_dictionary
from workbench.__main__ import main

PAGE = (Path(__file__).parent.parent.parent / "docs" / "howto" / "own-kind.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|console)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
CLASS = next(code for language, code in BLOCKS if language == "python")
COMMANDS = [line[2:] for language, code in BLOCKS if language == "console" for line in code.splitlines()]
SHORT = TrainConfig(tokens=8_000, batch_size=256, checkpoint_every=7, log_every=3)

pytestmark = pytest.mark.usefixtures("one_thread")


RUN = """
import json, os, signal, sys
from workbench.__main__ import main
from saes.kernels.autograd import AutogradStepper
step = AutogradStepper.step
def fatal(self, state, *rest):
    if state.step == 250:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, state, *rest)
for command in json.loads(sys.argv[1]):
    if command == ["killed"]:
        AutogradStepper.step = fatal
        os.chdir("../here")
    else:
        code = main([*command, "--threads", "1"])
        assert code in (0, None), (command, code)
"""


def run(folder: Path, *commands: str) -> subprocess.CompletedProcess:
    """Run commands of the page in one process; after `killed` in the folder `here`, until step 250 of a training."""
    return subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([shlex.split(each) for each in commands])],
        cwd=folder,
        env={**os.environ, "WORKBENCH_KINDS": "log_penalty.py"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Two folders with the page's file and a small recording by the page's name. In the first its first training ran
    uninterrupted; in the second all the page's commands did, the first training of which was killed and repeated."""
    whole = tmp_path_factory.mktemp("page") / "whole"
    here = whole.parent / "here"
    whole.mkdir()
    (whole / "log_penalty.py").write_text(CLASS, encoding="utf-8")
    pages = [f"page {i}: a quick fox and {i * 7 % 13} lazy dogs sleep near {i * 31 % 97} rivers" for i in range(400)]
    (whole / "text.jsonl").write_text("\n".join(json.dumps({"text": page}) for page in pages))
    corpus = "--corpus text.jsonl --tokens 8000 --context-length 32 --hook-points blocks.0.hook_resid_post"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(whole)
        assert main(["record", "small:mlp-2l", "--name", "demo", *corpus.split(), "--threads", "1"]) == 0
    shutil.copytree(whole, here)
    export, *commands = COMMANDS
    assert export == "export WORKBENCH_KINDS=log_penalty.py"
    first, *rest = (command.removeprefix("workbench ") for command in commands)
    killed = run(whole, first, "killed", first)
    assert killed.returncode == -9, killed.stdout[-1000:] + killed.stderr[-3000:]
    assert (here / "workspace/saes/first.partial/checkpoint/state.safetensors").exists()
    done = run(here, first, *rest)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return whole, here


@pytest.fixture
def followed(folders) -> Path:
    return folders[1]


def test_the_class_of_the_page_takes_about_thirty_lines():
    assert len([line for line in CLASS.splitlines() if line.strip()]) <= 30


def test_a_killed_training_of_the_page_ends_at_the_same_bits(folders):
    mine, theirs = (load_file(folder / "workspace/saes/first" / WEIGHTS) for folder in folders)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_pages_dictionaries_are_trained_evaluated_and_described(followed, monkeypatch):
    monkeypatch.delenv("WORKBENCH_KINDS", raising=False)
    workspace = Workspace(followed / "workspace")
    first, sparser = (workspace.open(StoredSAE, name) for name in ("first", "sparser"))
    assert ("kind", "log_penalty") in first.facts()  # scores and lists need no code
    assert first.heldout.fvu < 0.5
    assert sparser.heldout.l0 < first.heldout.l0
    found = {workspace.key(each) for each in workspace.artifacts()}
    assert {"saes/sparser", "features/first", "evaluations/first", "sae-comparisons/compare-first-sparser"} <= found
    monkeypatch.setenv("WORKBENCH_KINDS", str(followed / "log_penalty.py"))
    assert load_sae(followed / "workspace/saes/sparser").settings == {"weight": 0.02, "width": 0.5}


def test_pages_and_reads_show_it_like_any_other(followed, monkeypatch):
    import dash

    from dashboard.app import create_app

    app = create_app(Workspace(followed / "workspace"))
    with app.server.test_request_context():
        shown = dash.page_registry["workbench.sae_0"]["layout"](scheme="light", name="first")
    assert "first" in str(shown.to_plotly_json())

    def ask(address: str):
        return app.server.test_client().get(address, headers={"Host": "127.0.0.1:8050"})

    found = ask("/api/features?features=first&sort=density&descending=true&limit=1").json
    index = found["rows"][0]["feature"]
    monkeypatch.delenv("WORKBENCH_KINDS", raising=False)
    assert ask(f"/api/feature?features=first&index={index}").status_code == 200  # described: needs no code
    refused = ask(f"/api/vector?features=first&index={index}")
    assert refused.status_code == 404
    assert "WORKBENCH_KINDS=log_penalty.py" in refused.get_data(as_text=True)
    monkeypatch.setenv("WORKBENCH_KINDS", str(followed / "log_penalty.py"))
    sae = load_sae(followed / "workspace/saes/first")
    vector = torch.tensor(ask(f"/api/vector?features=first&index={index}").json["direction"])
    torch.testing.assert_close(vector, sae.decoder_directions[index].detach(), atol=1e-5, rtol=1e-4)


@pytest.fixture
def kind(tmp_path, monkeypatch):
    """Write the file of a kind; the name it is known by."""

    def write(code: str, name: str = "mine") -> str:
        (tmp_path / f"{name}.py").write_text(HEAD + code, encoding="utf-8")
        monkeypatch.setenv("WORKBENCH_KINDS", str(tmp_path / f"{name}.py"))
        return name

    return write


HEAD = "import torch\nfrom torch import nn\nfrom saes import AutogradKind\n\n"
RELU = """
class Mine(AutogradKind):
    def __init__(self, sizes, *, l1: float = 0.1, width: int = 3):
        super().__init__(sizes)
        self.l1 = l1
        self.W_enc, self.b_enc = nn.Parameter(self.W_dec.detach().T.clone()), nn.Parameter(torch.zeros(sizes.d_sae))

    def encode(self, x):
        return ((x - self.b_dec) @ self.W_enc + self.b_enc).relu()

    def loss(self, batch, acts, recons):
        return batch.fvu(recons) + batch.warmth * self.l1 * acts.sum(-1).mean() / batch.variance**0.5

    def constrain(self):
        self.W_dec.copy_(nn.functional.normalize(self.W_dec, dim=1))
"""
NOISY = """
class Mine(AutogradKind):
    def __init__(self, sizes, *, rate: float = 0.1):
        super().__init__(sizes)
        self.rate, self.layer = rate, nn.Linear(sizes.d_in, sizes.d_sae)
        self.register_buffer("level", torch.zeros(()))

    def encode(self, x):
        noise = torch.randn(len(x), 1) * self.rate if self.training else 0
        return (self.layer(x) + noise - self.level).relu()

    def loss(self, batch, acts, recons):
        self.level = 0.9 * self.level + 0.1 * acts.detach().mean()
        return batch.fvu(recons)
"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("recordings") / "planted")


def test_the_pages_kind_recovers_planted_features(kind, recording, tmp_path):
    config = own_config(kind(CLASS, "log_penalty"), d_sae=N_FEATURES, weight=0.05)
    sae = train_sae(recording, HOOK, config, LONG, tmp_path / "sae")
    untrained = train_sae(recording, HOOK, config, replace(LONG, tokens=512, lr=1e-9), tmp_path / "untrained")
    assert mcc(sae.W_dec, directions(0)) > 0.9
    assert mcc(untrained.W_dec, directions(0)) < 0.6
    assert heldout_of(tmp_path / "sae").fvu < 0.16 < 0.5 < heldout_of(tmp_path / "untrained").fvu


def test_noise_and_buffers_resume_bit_for_bit(kind, recording, tmp_path):
    config = own_config(kind(NOISY), d_sae=N_FEATURES)
    train_sae(recording, HOOK, config, SHORT, tmp_path / "whole")
    steps = train(recording, HOOK, config, SHORT, tmp_path / "sae")
    for _ in range(4):
        next(steps)
    steps.close()
    train_sae(recording, HOOK, config, SHORT, tmp_path / "sae")
    mine, theirs = load_file(tmp_path / "sae" / WEIGHTS), load_file(tmp_path / "whole" / WEIGHTS)
    assert mine["kind.level"] > 0
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    other = replace(SHORT, seed=1)
    train_sae(recording, HOOK, config, other, tmp_path / "other")
    assert not torch.equal(load_file(tmp_path / "other" / WEIGHTS)["kind.layer.weight"], mine["kind.layer.weight"])


def test_the_first_step_measures_what_the_sparse_step_measures(kind):
    """The same weights, ReLU and L1: loss, FVU, L0 and penalty of `Recipe` and of `AutogradKind`."""
    n, d, m = 64, 20, 48
    recipe = autograd_of(own_config(kind(RELU), d_sae=m, l1=0.2))
    sizes = DictionarySizes(d, m, torch.randn(d))
    state, x = recipe.start(sizes, seed=0), torch.randn(n, d) * 2
    silent, density = torch.zeros(m, dtype=torch.int64), torch.zeros(m)
    own = {name: state.extra[name].clone() for name in ("b_enc", "W_dec", "b_dec")}
    sparse = TrainState(W_enc=state.extra["W_enc"].T.contiguous(), **own, silent=silent, density=density)
    sparse.zero_moments()
    both = {"variance": 50.0, "sparsity_warmup_steps": 3, "dead_window": 100}
    mine = AutogradStepper(AutogradSettings(**both, n_steps=10), recipe.build(sizes, seed=0), PlainOps())
    theirs = Stepper(StepSettings(**both, k_aux=4), recipe_of(ReLUConfig(d_sae=m, l1_coefficient=0.2)), PlainOps())
    one, other = mine.step(state, x, 1e-3), theirs.step(sparse, x, 1e-3)
    for name in ("loss", "fvu", "l0", "penalty"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-5), name
    assert one.penalty > 0
    assert torch.equal(state.silent, sparse.silent)
    assert torch.allclose(state.density, sparse.density)
    assert torch.allclose(state.extra["b_enc"], sparse.b_enc, atol=1e-6)


def test_a_trained_dictionary_takes_raw_activations(kind, recording, tmp_path):
    config = own_config(kind(RELU), d_sae=N_FEATURES)
    sae = train_sae(recording, HOOK, config, SHORT, tmp_path / "sae")
    x = next(iter(recording.sequential([HOOK]))).activations[HOOK][:50]
    acts = sae.encode_sparse(x)
    dense = torch.zeros(len(x), sae.d_sae).scatter_add_(1, acts.indices.long(), acts.values)
    assert torch.equal(dense, sae.encode(x))
    torch.testing.assert_close(sae.decode_sparse(acts), sae(x), atol=1e-4, rtol=1e-4)
    scale = float(sae.input_scale[0])
    torch.testing.assert_close(sae(x), sae.kind.decode(sae.kind.encode(x * scale)) / scale, atol=1e-4, rtol=1e-4)
    assert torch.equal(load_dictionary(tmp_path / "sae")(x), sae(x))


def test_directions_are_read_off_any_affine_decoder():
    class Paired(AutogradKind):
        def encode(self, x):
            return (x @ self.W_dec.T).relu()

        def decode(self, acts):
            return acts[..., ::2] @ self.W_dec[::2] + 2 * acts[..., 1::2] @ self.W_dec[1::2] + 3

    made = Paired(DictionarySizes(6, 10, torch.zeros(6)))
    bias, found = affine_parts(made)
    expected = made.W_dec.detach() * torch.tensor([1.0, 2.0]).repeat(5)[:, None]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert bias.tolist() == [3.0] * 6


def test_code_that_is_not_here_or_has_changed_is_noticed(kind, recording, tmp_path, monkeypatch):
    config = own_config(kind(RELU), d_sae=N_FEATURES)
    train_sae(recording, HOOK, config, SHORT, tmp_path / "sae")
    steps = train(recording, HOOK, config, SHORT, tmp_path / "unfinished")
    next(steps)
    steps.close()
    kind(RELU + "\n# another version")
    changed = own_config("mine", d_sae=N_FEATURES)
    assert load_sae(tmp_path / "sae").d_sae == N_FEATURES  # it computes the same
    with pytest.raises(MismatchError, match="code"):
        next(train(recording, HOOK, changed, SHORT, tmp_path / "unfinished"))
    kind(RELU.replace(").relu()", " - 0.3).relu()"))
    with pytest.raises(CorruptError, match="no longer give the reconstructions"):
        load_sae(tmp_path / "sae")
    kind(RELU.replace("self.b_enc = ", "self.bias = ").replace("self.b_enc", "self.bias").replace("bias)", "bias)"))
    with pytest.raises(CorruptError, match="does not fit the class"):
        load_sae(tmp_path / "sae")
    monkeypatch.delenv("WORKBENCH_KINDS")
    with pytest.raises(MissingError, match=r"export WORKBENCH_KINDS=mine\.py"):
        load_sae(tmp_path / "sae")
    assert open_artefact(StoredSAE, tmp_path / "sae").headline()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (RELU.replace(").relu()", ")"), "negative activations"),
        (RELU.replace(" + batch.warmth", " + acts + batch.warmth"), "must be one number"),
        (RELU + "\n    def decode(self, acts):\n        return (acts @ self.W_dec).tanh()\n", "is not linear"),
        (RELU.replace("self.b_enc", "self.silent"), "parameter silent"),
    ],
)
def test_classes_that_cannot_be_trained_are_refused(kind, recording, tmp_path, code, error):
    config = own_config(kind(code), d_sae=N_FEATURES)
    with pytest.raises(ConfigError, match=error):
        next(train(recording, HOOK, config, SHORT, tmp_path / "sae"))


def test_settings_and_files_that_do_not_fit_are_refused_by_name(kind, tmp_path, monkeypatch):
    name = kind(RELU)
    assert own_config(name, d_sae=8, l1="0.5").settings == {"l1": 0.5, "width": 3}
    with pytest.raises(ConfigError, match="has no k; its settings are d_sae, l1, width"):
        own_config(name, k=3)
    with pytest.raises(ConfigError, match=r"width must be a int like 3, got 'x'"):
        own_config(name, width="x")
    with pytest.raises(ConfigError, match="needs a value of l1"):
        own_config(kind(RELU.replace("l1: float = 0.1", "l1: float")))
    with pytest.raises(ConfigError, match="holds 2"):
        own_config(kind(RELU + RELU.replace("class Mine", "class Other")))
    with pytest.raises(ConfigError, match="rename the file"):
        own_config(kind(RELU, "topk"))
    monkeypatch.setenv("WORKBENCH_KINDS", str(tmp_path / "nowhere.py"))
    assert list(own_kinds()) == ["nowhere"]
    with pytest.raises(MissingError, match=r"no file at .*nowhere\.py"):
        own_config("nowhere")
