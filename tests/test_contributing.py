"""CONTRIBUTING's "how to add" list is true: each addition is made in a copy of the tree, in the files that it names.

A path of the list such as `saes/kinds/KIND.py` stands for a new file of any name. After every addition a fresh process
imports the copy and uses what was added. All additions are made in one copy, where the tests that see them and those of
the source pass at the end, in one process.
"""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("interp", "saes", "dashboard", "workbench", "tools")
FILES = ("README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml")
SOURCE_TESTS = [
    f"tests/test_{name}.py" for name in ("shape_of_code", "public_face", "dependencies", "language", "docs")
]
SLOW = (
    *("light", "same_public", "notebooks_use", "pages_use", "links", "blocks", "commands_are", "make_targets"),
    *("pictures", "gallery"),
)
"""Of these tests those that import much or read every page, and see no addition to the code."""


class Copy:
    """The tree in a folder of its own, and the files that an addition touched."""

    def __init__(self, folder: Path):
        self.folder, self.touched = folder, set[str]()
        folder.mkdir(exist_ok=True)
        self.tests: list[str] = []
        """Further tests that see an addition, of all so far."""
        large = shutil.ignore_patterns("__pycache__", "*.parquet", "*.png")
        for name in (*PACKAGES, "tests"):
            data = shutil.ignore_patterns(
                "__pycache__", "node_modules", "*.parquet", *["*.safetensors"] * (name != "tests")
            )
            shutil.copytree(ROOT / name, folder / name, ignore=data)
        for name in ("docs", "notebooks", "benchmarks", "lock"):
            shutil.copytree(ROOT / name, folder / name, ignore=large)
        for name in FILES:
            shutil.copy(ROOT / name, folder / name)

    def create(self, path: str, text: str) -> None:
        assert not (self.folder / path).exists()
        (self.folder / path).parent.mkdir(exist_ok=True)
        (self.folder / path).write_text(text, encoding="utf-8")
        self.touched.add(path)

    def insert(self, path: str, before: str, text: str) -> None:
        """Put text before a line that is there exactly once."""
        content = (self.folder / path).read_text(encoding="utf-8")
        assert content.count(before) == 1, f"{before!r} is {content.count(before)} times in {path}"
        (self.folder / path).write_text(content.replace(before, text + before), encoding="utf-8")
        self.touched.add(path)

    def run(self, code: str) -> None:
        """Run code in a fresh process that imports the copy."""
        self._done("-c", f"import interp; assert interp.__file__.startswith({str(self.folder)!r})\n{code}")

    def check(self, addition: str) -> None:
        """Hold the files touched against those that the list names, and lint them."""
        check_touched(self, addition)
        self._done("-m", "ruff", "check", "--quiet", *sorted(self.touched))

    def red(self) -> set[str]:
        """Return the tests of the source, and of the additions, that fail here."""
        chosen = [*SOURCE_TESTS, *self.tests, "-k", f"not ({' or '.join(SLOW)})"]
        ran = self._python("-m", "pytest", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", *chosen)
        found = set(re.findall(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", ran.stdout, flags=re.MULTILINE))
        assert ran.returncode == bool(found), (ran.stdout + ran.stderr)[-3000:]
        return found

    def _done(self, *arguments: str) -> None:
        ran = self._python(*arguments)
        assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=1100,
            check=False,
        )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Return the copy that all additions are made in."""
    return Copy(tmp_path_factory.mktemp("copy"))


@pytest.fixture
def copy(tree: Copy) -> Copy:
    """Return the copy before an addition."""
    tree.touched = set()
    shutil.rmtree(tree.folder / "workspace", ignore_errors=True)  # of the addition before
    return tree


def named_files(addition: str) -> list[str]:
    """Return the files of the product that the list says to change ("in `PATH`"), new ones as patterns."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    entry = re.search(rf"^### {addition}\n(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL | re.IGNORECASE)
    assert entry, f"CONTRIBUTING says nothing of {addition}"
    paths = re.findall(r"\b[Ii]n\s+`([\w/]+\.py)`", entry[1])
    return [re.sub(r"[A-Z]{2,}", "*", path) for path in paths if path.startswith(PACKAGES)]


def check_touched(copy: Copy, addition: str) -> None:
    """Every file that was touched is named, and every file that is named was needed."""
    patterns = named_files(addition)
    touched = {path for path in copy.touched if path.startswith(PACKAGES) and not path.endswith("__init__.py")}
    unnamed = {path for path in touched if not any(fnmatch.fnmatch(path, pattern) for pattern in patterns)}
    assert not unnamed, f"the list does not name {unnamed}"
    unused = {pattern for pattern in patterns if not fnmatch.filter(copy.touched, pattern)}
    assert not unused, f"the list names {unused} without need"


@pytest.mark.slow
def test_a_head_kind_is_scored_and_can_be_selected(copy: Copy):
    kinds = "interp/circuits/head_kinds.py"
    copy.insert(
        kinds,
        "class HeadKind(",
        '''def token_before_last(prompts: HeadPrompts) -> Targets:
    """Return the targets of a head that attends two tokens back."""
    n, length = prompts.tokens.shape
    two_back = _shift(torch.eye(length, dtype=torch.bool)[None].expand(n, -1, -1), -2)
    return two_back & ~prompts.is_bos[:, None]


''',
    )
    line = '    "token_before_last": HeadKind(token_before_last),\n'
    copy.insert(kinds, '    "current_token": HeadKind(current_token),\n', line)
    sentence = '    "token_before_last": "attends to the token before the last one",\n'
    copy.insert("interp/names.py", '    "first_token": "attends', sentence)
    copy.insert(
        "tests/interp/slow_scores.py",
        '                "current_token": k == q',
        '                "token_before_last": k == q - 2 and tokens[k] != bos,\n',
    )
    copy.tests += ["tests/interp/test_patterns.py"]
    copy.tests += ["tests/interp/test_heads.py::test_every_kind_of_head_has_a_sentence_about_it"]
    copy.check("a head kind")
    copy.run("""
import torch
from interp.circuits.config import HeadScoresConfig
from interp.circuits.head_kinds import KINDS, score_heads, score_pattern, target_masks, target_weights
from interp.artifacts import save_artefact
from interp.models.loading import load_model
from interp.workspace import Workspace

tokens = torch.arange(1, 9)[None]
pattern = torch.eye(8)
pattern[2:] = torch.eye(8)[:6]
scores = score_pattern(pattern[None, None], target_weights(target_masks(tokens, None)))[0, 0]
at = list(KINDS).index("token_before_last")
assert scores[at] == 1 and scores[list(KINDS).index("previous_token")] < 0.2, scores

quick = HeadScoresConfig(n_prompts=4, context_length=41, min_lag=8, max_lag=20, seeds=(0,))
scores = score_heads(load_model("small:mlp-2l"), quick)
assert not scores.above_null["token_before_last"].any(), "a random model has no such head"
workspace = Workspace("workspace", create=True)
save_artefact(scores, workspace.path("heads", "mine"))

from dashboard.app import create_app
app = create_app(workspace)
callback = next(value for key, value in app.callback_map.items() if "heads-map.figure" in key)
with app.server.test_request_context():
    import dash
    layout = dash.page_registry["workbench.heads_0"]["layout"](scheme="light", kind="token_before_last")
    text = str(layout.to_plotly_json())
    assert "token before last" in text, text[:2000]
client = app.server.test_client()
body = {
    "output": "..heads-map.figure...heads-grid.rowData...heads-lead.children..",
    "outputs": [{"id": i, "property": p} for i, p in
                (("heads-map", "figure"), ("heads-grid", "rowData"), ("heads-lead", "children"))],
    "inputs": [{"id": "heads-kind", "property": "value", "value": "token_before_last"}],
    "changedPropIds": ["heads-kind.value"],
    "state": [{"id": "heads-state", "property": "data", "value": {"name": "mine", "model": "small:mlp-2l"}},
              {"id": "scheme", "property": "data", "value": "light"}],
}
client.get("/", headers={"Host": "127.0.0.1:8050"})  # a page hands over the key that writes carry
answer = client.post("/_dash-update-component", json=body, headers={"Host": "127.0.0.1:8050"})
assert answer.status_code == 200, answer.data[:2000]
rows = answer.json["response"]["heads-grid"]["rowData"]
assert len(rows) == scores.score["token_before_last"].size
""")


@pytest.mark.slow
def test_an_sae_kind_trains_by_its_config_and_reads_back(copy: Copy):
    copy.insert(
        "saes/kinds/config.py",
        "_KINDS: tuple[type[SAEConfig], ...] = (\n",
        '''@dataclass(frozen=True, kw_only=True)
class HalfTopKConfig(KConfig):
    """Half of `k` latents per token, in two halves of the dictionary."""

    kind: Literal["halftopk"] = "halftopk"


''',
    )
    copy.insert("saes/kinds/config.py", "    CrosscoderConfig,\n)", "    HalfTopKConfig,\n")
    copy.create(
        "saes/kinds/halftopk.py",
        '''"""Half TopK: `k // 2` latents of each token."""

from saes.kernels.state import Ops, Selected, TrainState, whole
from saes.kinds.base import Trained, TrainingRecipe
from saes.kinds.config import HalfTopKConfig
from saes.kinds.topk import TopKSAE


class HalfTopKRecipe(TrainingRecipe):
    """Select half of `k` latents per token."""

    def __init__(self, config: HalfTopKConfig):
        self.k = config.k // 2

    def select(self, ops: Ops, state: TrainState, pre) -> Selected:
        return whole(ops.select_topk(pre, self.k))

    def finish(self, trained: Trained) -> TopKSAE:
        return TopKSAE(trained.weights, k=self.k, metadata=trained.metadata)
''',
    )
    copy.insert("saes/kinds/__init__.py", "- `registry`", "- `halftopk`    half of the latents, for this test\n")
    registry = "saes/kinds/registry.py"
    copy.insert(
        registry,
        "from saes.kinds.jumprelu import JumpReLURecipe\n",
        "from saes.kinds.halftopk import HalfTopKRecipe\n",
    )
    copy.insert(registry, "    JumpReLUConfig,\n", "    HalfTopKConfig,\n")
    copy.insert(registry, "    GatedConfig: GatedRecipe,\n", "    HalfTopKConfig: HalfTopKRecipe,\n")
    copy.tests += ["tests/saes/test_config.py", "tests/saes/test_train_many.py"]
    copy.check("an SAE kind")
    copy.run("""
import json
from pathlib import Path
from workbench.__main__ import main

pages = [f"page {i}: a quick fox and {i * 7 % 13} lazy dogs sleep" for i in range(300)]
Path("text.jsonl").write_text("\\n".join(json.dumps({"text": page}) for page in pages))
corpus = ["--corpus", "text.jsonl", "--tokens", "6000", "--context-length", "32"]
assert main(["record", "small:mlp-2l", "--name", "mine", "--hook-points", "blocks.0.hook_resid_post", *corpus]) == 0
settings = ["--d-sae", "64", "--k", "8", "--tokens", "5120", "--batch-size", "256"]
assert main(["train", "mine", "--name", "half", "--kind", "halftopk", *settings]) == 0

from interp.workspace import Workspace
from saes.training.stored import StoredSAE
from saes.weights.folder import load_sae
sae = load_sae(Workspace("workspace").path("sae", "half"))
assert sae.k == 4 and sae.d_sae == 64
stored = Workspace("workspace").open(StoredSAE, "half")
assert stored.settings.sae.kind == "halftopk", stored.settings
assert 3 < stored.heldout.l0 <= 4 and stored.heldout.fvu < 1, stored.heldout
""")


@pytest.mark.slow
def test_a_weight_format_is_recognised_and_loaded(copy: Copy):
    copy.create(
        "saes/weights/_plain.py",
        '''"""A plain layout: `plain.json`, and `plain.safetensors` with `enc` and `dec`, both `[d_sae, d_in]`."""

from pathlib import Path

import torch
from torch import Tensor

from saes.kinds.base import Weights
from saes.kinds.l1 import ReLUSAE
from saes.weights.layout import Axes, Conversion, Format, check_arrays, read_safetensors

LAYOUT: dict[str, Axes] = {"enc": ("d_sae", "d_in"), "dec": ("d_sae", "d_in")}


def read(path: Path) -> Conversion:
    """Return the dictionary of a folder."""
    arrays = check_arrays(read_safetensors(path / "plain.safetensors"), LAYOUT, path, what="a plain dictionary")
    d_sae, d_in = arrays["enc"].shape
    weights = Weights(arrays["enc"].T.contiguous(), torch.zeros(d_sae), arrays["dec"], torch.zeros(d_in))

    return Conversion(sae=ReLUSAE(weights), forward=arrays.forward(_forward))


def _forward(x: Tensor, w: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    acts = (x @ w["enc"].T).clamp_min(0)
    return acts, acts @ w["dec"]


FORMAT = Format(
    name="plain",
    files="plain.json, plain.safetensors",
    recognises=lambda path: (path / "plain.json").is_file(),
    read=read,
)
''',
    )
    copy.insert("saes/weights/__init__.py", "- `read`", "- `_plain`   a plain layout, for this test\n")
    copy.insert(
        "saes/weights/read.py",
        "from saes.weights.imported import TOLERANCE",
        "from saes.weights._plain import FORMAT as PLAIN\n",
    )
    copy.insert("saes/weights/read.py", "    _openai.FORMAT,\n", "    PLAIN,\n")
    copy.run("""
from pathlib import Path
import torch
from safetensors.torch import save_file

folder = Path("tests/fixtures/plain")
folder.mkdir()
(folder / "plain.json").write_text("{}")
generator = torch.Generator().manual_seed(0)
enc, dec, x = (torch.randn(n, 8, generator=generator) for n in (24, 24, 5))
save_file({"enc": enc, "dec": dec}, folder / "plain.safetensors")
acts = (x @ enc.T).relu()
save_file({"x": x, "feature_acts": acts, "recons": acts @ dec}, folder / "probe.safetensors")
""")
    peers = "tests/saes/test_weights_peers.py"
    copy.tests += [f"{peers}::test_every_format_has_a_checkpoint_in_the_tests"]
    copy.tests += [f"{peers}::test_a_peers_checkpoint_gives_the_peers_numbers[plain]"]
    copy.tests += [f"{peers}::test_a_format_is_recognised_by_its_files[plain]"]
    copy.tests += [f"{peers}::test_what_was_read_comes_back_from_our_own_folder[plain]"]
    copy.check("a weight format")


@pytest.mark.slow
def test_a_page_answers_and_is_in_the_navigation(copy: Copy):
    copy.create(
        "dashboard/sizes/page.py",
        '''"""*Sizes*: the number of artefacts of the workspace."""

from typing import Any

from dash import html

from dashboard.components.frame import page
from dashboard.components.pages import Page
from dashboard.sources import PageSources


def layout(context: PageSources, **_: Any) -> html.Div:
    """Return the page."""
    return page("Sizes", html.P(f"The workspace holds {len(list(context.workspace.artifacts()))} artefacts."))


PAGE = Page(
    title="Sizes",
    path="/sizes",
    layout=layout,
    shows="The number of artefacts.",
    command="workbench demo",
)
''',
    )
    copy.create("dashboard/sizes/__init__.py", '"""The page `/sizes`.\n\n- `page`  the page\n"""\n')
    copy.insert("dashboard/__init__.py", "- `search` ", "- `sizes`       the number of artefacts\n")
    pages = "tests/dashboard/test_dashboard_pages.py"
    copy.tests += [f"{pages}::test_an_empty_workspace_is_no_error[Sizes]"]
    copy.tests += [f"{pages}::test_every_page_has_its_own_title_and_address_and_says_what_it_would_show"]
    copy.check("a page")
    copy.run("""
import dash
from dashboard.app import create_app
from interp.workspace import Workspace

app = create_app(Workspace("workspace", create=True))
assert app.server.test_client().get("/sizes", headers={"Host": "127.0.0.1:8050"}).status_code == 200
with app.server.test_request_context():
    shown = dash.page_registry["workbench.sizes_0"]["layout"](scheme="light")
assert "The workspace holds 0 artefacts." in str(shown.to_plotly_json())
assert "/sizes" in str(app.layout().to_plotly_json()), "a link in the bar"
""")


@pytest.mark.slow
def test_a_verb_runs_with_its_help_and_its_form(copy: Copy):
    copy.create(
        "workbench/verbs/glance.py",
        '''"""`workbench glance MODEL`: scores of every attention head, from a few short prompts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.analysis import Analysis, AnalysisRun
from workbench.terminal import Heading, ModelArgument, RunsModel, slug

if TYPE_CHECKING:
    from interp.circuits.head_scores import HeadScores

HEADING = Heading.CIRCUITS


@dataclass(frozen=True, kw_only=True)
class Glance(RunsModel, Analysis["HeadScores"]):
    """Score every head on a few short prompts."""

    makes: ClassVar[str] = "heads"

    model: ModelArgument
    n_prompts: int = 4
    """Prompts of 41 tokens."""

    def default_name(self) -> str:
        return slug(self.model)

    def measure(self, run: AnalysisRun) -> "HeadScores":
        from interp.circuits.config import HeadScoresConfig
        from interp.circuits.head_kinds import score_heads

        config = HeadScoresConfig(n_prompts=self.n_prompts, context_length=41, min_lag=8, max_lag=20, seeds=(0,))
        return score_heads(run.model(self.model), config)
''',
    )
    copy.run("""
from workbench.__main__ import main

assert main(["glance", "small:mlp-2l", "--n-prompts", "2"]) == 0
from interp.circuits.head_scores import HeadScores
from interp.workspace import Workspace
assert Workspace("workspace").open(HeadScores, "small-mlp-2l").settings.prompts == 2
""")
    line = "tests/workbench/test_command_line.py"
    about = ("names_every_verb_and_loads_no_torch", "gives_own_options_first_and_every_option_a_meaning")
    copy.tests += [f"{line}::test_every_verb_has_help[glance]", *(f"{line}::test_help_{each}" for each in about)]
    form = "tests/dashboard/test_run_options.py::test_the_form_of_a_verb_has_its_fields_with_help_and_withholds_paths"
    options = "tests/workbench/test_verb_options.py::test_"
    copy.tests += [
        f"{options}each_option_is_used[glance]",
        f"{options}the_device_is_printed[glance]",
        f"{form}[glance]",
    ]
    copy.check("a verb")


@pytest.mark.slow
def test_a_kind_of_artefact_with_its_verb_pages_and_api_is_three_files(copy: Copy):
    path = "interp/patching/patching_map.py"
    imports = "from interp.artifacts import Artefact, DocumentField, Measured, Table\n"
    more = "import numpy as np\nfrom jaxtyping import Float64\n\nfrom interp.artifacts import ARRAY, "
    rows = copy.folder / path
    text = rows.read_text(encoding="utf-8").replace(imports, imports.replace("from interp.artifacts import ", more))
    rows.write_text(text, encoding="utf-8")
    copy.insert(
        path,
        "@dataclass(frozen=True, kw_only=True)\nclass AblationEffect:",
        '''@dataclass(frozen=True, kw_only=True)
class LengthSettings:
    """Settings that determine the lengths."""

    model: str


@dataclass(frozen=True, kw_only=True)
class Lengths(Artefact, kind="lengths"):
    """Norms of the directions by which a model writes its tokens."""

    settings: LengthSettings
    longest: float
    norms: Annotated[Float64[np.ndarray, " d_vocab"], ARRAY]

    def view(self) -> View:
        yield f"The longest direction of {self.settings.model} has norm {self.longest:.3g}"


''',
    )
    copy.insert(
        "interp/__init__.py",
        '    Kind("recording", ',
        '    Kind("lengths", "lengths", "interp.patching.patching_map:Lengths"),\n',
    )
    copy.create(
        "workbench/verbs/lengths.py",
        '''"""`workbench lengths MODEL`: the norms of the directions by which a model writes its tokens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.analysis import Analysis, AnalysisRun
from workbench.terminal import Heading, ModelArgument, RunsModel, slug

if TYPE_CHECKING:
    from interp.patching.patching_map import Lengths

HEADING = Heading.MAPS


@dataclass(frozen=True, kw_only=True)
class MeasureLengths(RunsModel, Analysis["Lengths"]):
    """Measure the norms of the unembedding's directions."""

    words: ClassVar[tuple[str, ...]] = ("lengths",)
    makes: ClassVar[str] = "lengths"

    model: ModelArgument

    def default_name(self) -> str:
        return slug(self.model)

    def measure(self, run: AnalysisRun) -> "Lengths":
        from interp.patching.patching_map import Lengths, LengthSettings

        norms = run.model(self.model).W_U.detach().double().norm(dim=0).numpy()
        return Lengths(settings=LengthSettings(model=self.model), longest=float(norms.max()), norms=norms)
''',
    )
    copy.run("""
from workbench.__main__ import main

assert main(["lengths", "small:mlp-2l"]) == 0
import sys
from interp.workspace import Workspace
workspace = Workspace("workspace")
from interp.patching.patching_map import Lengths

found = workspace.open(Lengths, "small-mlp-2l")
assert found.norms.max() == found.longest
from dashboard.app import create_app
page = create_app(workspace).server.test_client()
here = {"Host": "127.0.0.1:8050"}
assert page.get("/api/artefact?key=lengths/small-mlp-2l", headers=here).get_json()["headline"] == found.headline()
assert "lengths" in page.get("/api/kinds", headers=here).get_json()
from dashboard.notebook import show
shown = show("lengths/small-mlp-2l", workspace).html
assert found.headline() in shown and "<h2>Settings</h2>" in shown
sys.path += ["tests/fixtures"]
from visit import ERROR, Visitor
visitor = Visitor(create_app(workspace))
overview = visitor.open("/")
assert "/artefact/lengths/small-mlp-2l" in overview and '"Lengths"' in overview and found.headline() in overview
opened = visitor.open("/artefact/lengths/small-mlp-2l")
assert found.headline() in opened and "arrays.safetensors" in opened and ERROR not in opened
""")
    assert len(copy.touched) == 3
    copy.check("a kind of artefact")


@pytest.mark.slow
def test_an_act_answers_on_the_command_line_over_the_api_to_agents_and_in_a_script(copy: Copy):
    copy.create(
        "saes/acts/lengths.py",
        '''"""An act on the vocabulary. Torch-free until it is measured."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval

from interp.acts import Act
from interp.options import ModelName
from saes.acts.run import Run


@dataclass(frozen=True)
class TokenLength:
    """The norm of a direction, and the mean over the vocabulary."""

    norm: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class MeasureToken(Act[Run, TokenLength]):
    """Return the norm of the direction that writes a token, beside the mean over all tokens."""

    verb: ClassVar[str] = "measure_token"
    model: ModelName
    """A model of the workspace."""
    token: Annotated[int, Interval(ge=0, lt=100)]
    """Number of the token."""

    def measure(self, run: Run) -> TokenLength:
        norms = run.model(self.model).W_U.detach().norm(dim=0)
        return TokenLength(float(norms[self.token]), float(norms.mean()))
''',
    )
    copy.insert("saes/acts/__init__.py", "- `graphs`", "- `lengths`      an act on the vocabulary, for this test\n")
    copy.check("an act")
    copy.run("""
import asyncio
import contextlib
import io
import json
from interp.workspace import Workspace
from workbench.__main__ import main

workspace = Workspace("workspace", create=True)
words = ["ask", "measure-token", "--model", "small:mlp-2l", "--token", "3"]
out = io.StringIO()
with contextlib.redirect_stdout(out):
    assert main(words) == 0
answer = json.loads(out.getvalue())
assert answer["norm"] > 0 and answer["mean"] > 0, answer
assert main([*words[:-1], "300"]) == 2

from saes.acts.lengths import MeasureToken
from saes.acts.run import Run
run = Run(workspace)
assert abs(MeasureToken(model="small:mlp-2l", token=3).measure(run).norm - answer["norm"]) < 1e-6

from dashboard.app import create_app
from dashboard.live import LiveModel
live = LiveModel(workspace)
live._run._known_only = False
client = create_app(workspace, live=live).server.test_client()
here = {"Host": "127.0.0.1:8050"}
client.get("/", headers=here)
asked = {"model": "small:mlp-2l", "token": 3}
found = client.post("/api/act/measure_token", json=asked, headers=here)
assert found.status_code == 200 and abs(found.json["norm"] - answer["norm"]) < 1e-6, found.data
found = client.post("/api/act/measure_token", json=asked | {"token": 300}, headers=here)
assert found.status_code == 400 and "token should be less than 100" in found.json["error"], found.data

from dashboard import api
assert abs(api.ask(live, "measure_token", asked)["norm"] - answer["norm"]) < 1e-6
from saes.acts import catalogue
assert catalogue()["measure_token"].schema()["properties"]["token"]["exclusiveMaximum"] == 100
""")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_addition_turns_a_test_of_the_source_red(copy: Copy):
    if red := copy.red():
        red -= Copy(copy.folder.with_name("untouched")).red()
    assert not red, f"additions by the list turn these tests red: {red}"


def test_the_check_sees_a_file_that_the_list_does_not_name(copy: Copy):
    copy.create("dashboard/another/page.py", "")
    copy.create("dashboard/elsewhere.py", "")
    with pytest.raises(AssertionError, match="does not name"):
        check_touched(copy, "a page")
