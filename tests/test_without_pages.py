"""`interp`, `saes` and the verbs that compute work where the packages of the dashboard are not installed."""

import subprocess
import sys

PAGES = ("dash", "dash_ag_grid", "dash_mantine_components", "flask", "werkzeug")
HIDDEN = f"""
import sys


class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {PAGES}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Hide())
"""


def run(code: str, folder) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", HIDDEN + code], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


def test_the_packages_of_the_pages_are_hidden(tmp_path):
    code = "try:\n    import dash\nexcept ModuleNotFoundError as error:\n    print(error)"
    assert run(code, tmp_path) == "No module named 'dash'\n"


PUBLIC = """
import interp, interp.studies, saes
for face in (interp, interp.studies, saes):
    for name in face.__all__:
        getattr(face, name)
"""
WORK = """
import json
from pathlib import Path
from interp import HeadScoresConfig, RecordConfig, Recording, Workspace, load_model, open_corpus, record, score_heads
from saes import TopKConfig, TrainConfig, train_sae

quick = HeadScoresConfig(n_prompts=16, context_length=13, min_lag=4, max_lag=6)
scores = score_heads(load_model("planted:induction"), quick)
assert scores.above_null["induction"].any(), scores

pages = [f"page {i}: a quick fox and {i * 7 % 13} lazy dogs sleep" for i in range(300)]
Path("text.jsonl").write_text("\\n".join(json.dumps({"text": page}) for page in pages))
workspace, hook_point = Workspace("workspace", create=True), "blocks.0.hook_resid_post"
folder, texts = workspace.path("recording", "text"), open_corpus("text.jsonl")
config = RecordConfig(tokens=6000, context_length=32)
record(load_model("small:mlp-2l"), texts, folder, config, hook_points=[hook_point])
short, folder = TrainConfig(tokens=2048, batch_size=256), workspace.path("sae", "small")
train_sae(Recording(workspace.path("recording", "text")), hook_point, TopKConfig(d_sae=64, k=4), short, folder)
assert 0 < workspace.manifest("sae", "small").summary["heldout"]["fvu"] < 1
"""
VERB = """
from workbench.__main__ import main
assert main(["heads", "small:mlp-2l", "--n-prompts", "4", "--context-length", "41", "--max-lag", "20"]) == 0
"""


def test_a_verb_runs_a_dictionary_is_trained_and_every_public_name_is_there(tmp_path):
    """In one process, the verb first: nothing that it needs has been imported before."""
    assert "wrote workspace/heads/small-mlp-2l" in run(VERB + WORK + PUBLIC, tmp_path)
