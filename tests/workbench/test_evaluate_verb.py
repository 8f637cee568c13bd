"""`workbench evaluate`: from an SAE and its recording to the artefact, part by part."""

import pytest
import torch

from interp.artifacts import partial_path, verify
from interp.recording.store import Recording
from interp.workspace import Workspace
from saes.evaluation.evaluation import BASES, ConceptSettings, SAEEvaluation
from saes.evaluation.nulls import WHOLE
from saes.evaluation.scores import ALL, Probing
from saes.kinds.config import TopKConfig, TranscoderConfig
from saes.training.config import NULLS, TrainConfig
from saes.training.reconstruction import evaluate_on_recording
from saes.training.train import train_sae
from saes.weights.folder import load_sae
from workbench.verbs import evaluate as verb
from workbench.verbs.evaluate import given_file

EVALUATE = ("evaluate", "--threads", 1)
HOOK, OUT = "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out"


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_model, text_documents):
    """A recording of a small model of bytes, an SAE and a transcoder of it, hardly trained."""
    from interp.recording.record import record
    from interp.recording.recorded import RecordConfig

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    workspace = Workspace(tmp_path_factory.mktemp("workspace"), create=True)
    folder = workspace.path("recording", "bytes")
    record(tiny_model, text_documents, folder, RecordConfig(tokens=8_000, context_length=24), hook_points=[HOOK, OUT])
    settings = TrainConfig(tokens=6_000, batch_size=256, lr=1e-2, log_every=1000, heldout_fraction=0.4)
    configs = {"one": TopKConfig(d_sae=48, k=4), "across": TranscoderConfig(d_sae=48, k=4, target=OUT)}
    for name, config in configs.items():
        train_sae(Recording(folder), HOOK, config, settings, workspace.path("sae", name))
    yield workspace.root
    torch.set_num_threads(before)


def opened(root, name: str) -> SAEEvaluation:
    return Workspace(root).open(SAEEvaluation, name)


def test_the_artefact_holds_every_score_with_its_interval(cli, root):
    printed = cli(root, *EVALUATE, "one", "--contexts", 20)
    folder = root / "evaluations" / "one"
    found = opened(root, "one")
    assert verify(folder) == []
    sae, recording = load_sae(root / "saes" / "one"), Recording(root / "recordings" / "bytes")
    expected = evaluate_on_recording(sae, recording, heldout_fraction=0.4)  # the split that the SAE was trained with
    held, inside = found.heldout, found.in_model
    assert held.fvu == pytest.approx(expected.fvu)
    low, high = held.intervals["fvu"]
    assert low < held.fvu < high
    assert held.n_documents >= 8
    assert sum(held.density_counts) == round(48 * (1 - held.dead_fraction))
    assert sum(found.decoder.counts) == 48
    assert inside is not None
    assert inside.n_tokens <= 20 * 22
    assert inside.kl_spliced > 0
    assert (found.probing, found.absorption, found.concepts) == (None, None, None)
    assert found.about.parents.keys() == {"saes/one", "recordings/bytes", "model:small:mlp-2l"}
    assert f"FVU {held.fvu:.3f} [{low:.3f}, {high:.3f}]" in printed


def test_a_transcoder_is_measured_at_its_target_inside_the_model(cli, root):
    cli(root, *EVALUATE, "across", "--contexts", 20)
    inside = opened(root, "across").in_model
    assert inside is not None
    assert inside.n_documents > 1
    assert inside.kl_spliced < inside.kl_zero


def test_a_part_that_was_measured_is_not_measured_again(cli, root, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(verb.Evaluate, "inside", stop)
        with pytest.raises(KeyboardInterrupt):
            verb.Evaluate(sae="one", name="stopped", workspace=root, contexts=8).run()
    left = partial_path(root / "evaluations" / "stopped")
    assert {path.name for path in left.glob("*/*.json")} == {"heldout.json", "decoder.json"}
    with monkeypatch.context() as patch:
        patch.setattr("saes.training.reconstruction.evaluate_on_recording", stop)
        cli(root, *EVALUATE, "one", "--name", "stopped", "--contexts", 8)
    found = opened(root, "stopped")
    assert found.in_model is not None
    assert found.in_model.n_tokens <= 8 * 22
    assert found.about.files == {}


def test_without_contexts_the_model_is_left_alone(cli, root):
    cli(root, *EVALUATE, "one", "--name", "rows", "--contexts", 0)
    assert opened(root, "rows").in_model is None


def test_probing_and_absorption_say_what_they_found_or_why_not(cli, root, tmp_path):
    labels = tmp_path / "mine.csv"
    labels.write_text("token,label\nt,often\na,often\nz,rare\nq,rare\nx,rare\n")
    options = ("--contexts", "0", "--probing", "--labels", str(labels), "--probe-seeds", "1", "--absorption")
    out = cli(root, *EVALUATE, "one", "--name", "probed", *options)
    found = opened(root, "probed")
    probing = found.probing
    assert isinstance(probing, Probing)
    asked = {task.name for task in probing.tasks} | probing.skipped.keys()
    assert {"capital", "next punctuation", "late", "mine: rare"} <= asked
    assert {mean.dictionary for mean in probing.means} == {"one", "pca", "coordinates", "untrained", ALL}
    assert all(line in out for line in probing.table().splitlines())
    assert isinstance(found.absorption, str)
    assert "holds no words" in found.absorption  # its tokens are bytes
    assert found.settings.probing is not None
    assert (found.settings.probing.labels, found.settings.probing.config.seeds) == (given_file(labels), (0,))
    assert "absorption was not measured" in out


CONCEPTS = """
[classes.piece]
templates = ["{}", "so {}", "a {} b", "it {}", "{} go"]
others = [OTHERS]
[[concepts]]
name = "digits"
class = "piece"
words = ["1", "2", "3", "4", "5", "6", "7", "8"]
"""


def test_concepts_are_scored_by_set_with_their_baselines(cli, root, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        CONCEPTS.replace("OTHERS", ", ".join(f'"{letter}"' for letter in "abcdefghijklmnopqrstuvwxyzABCDEF"))
    )
    options = ("--contexts", "0", "--concepts", "--concept-list", str(path), "--concept-set", "choose")
    out = cli(root, *EVALUATE, "one", "--name", "concepts", *options)
    made = opened(root, "concepts")
    found = made.concept_scores
    assert found is not None
    (score,) = found.scores
    assert score.concept.name == "digits"
    assert 0 <= score.own.unit < 48
    assert score.detectors.keys() == set(BASES)
    assert all(0 <= each.f1.estimate <= 1 for each in score.detectors.values())
    assert found.shares().keys() == {"choose"}
    assert found.features == ""  # it has no feature tables, so nothing was searched
    assert all(line in out for line in found.table().splitlines())
    assert made.settings.concepts == ConceptSettings(listed=given_file(path), set="choose")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--concept-set", "judge"], "add --concepts"),
        (["--concepts", "--concept-list", "x.toml"], "no list of concepts can be read at x.toml"),
        (["--labels", "x.csv"], "add --probing"),
        (["--labels", "x.csv", "--probing"], "no file at x.csv"),
        (["--probing", "--probe-seeds", "0"], "probe_seeds must be at least 1"),
        (["--null-tokens", "9"], "add --nulls"),
    ],
)
def test_what_no_probe_can_read_is_refused_before_anything_is_measured(cli, root, arguments, expected):
    assert expected in cli(root, *EVALUATE, "one", "--name", "refused", "--contexts", 0, *arguments, code=2)
    assert not partial_path(root / "evaluations" / "refused").exists()


def test_null_dictionaries_are_scored_in_every_part(cli, root, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(CONCEPTS.replace("OTHERS", ", ".join(f'"{x}"' for x in "abcdefghijklmnopqrstuvwxyzABCDEF")))
    options = ("--contexts", 8, "--probing", "--probe-seeds", 1, "--concepts", "--concept-list", str(path))
    out = cli(root, *EVALUATE, "one", "--name", "nulls", "--nulls", "--null-tokens", 4096, *options)
    made = opened(root, "nulls")
    found = made.against_nulls()
    assert found is not None
    assert isinstance(made.nulls, dict)
    assert made.nulls.keys() == {WHOLE, *NULLS, "pca", "coordinates"}
    assert {score.score.split()[0] for score in found.scores} == {
        "FVU",
        "loss",
        "features",
        "labels,",
        "concepts",
        "probing,",
    }
    assert all(score.nulls.keys() >= set(NULLS) for score in found.scores if not score.score.startswith("labels"))
    assert made.concept_scores is not None
    assert made.concept_scores.scores[0].detectors.keys() == {*BASES, WHOLE, *NULLS}
    assert made.settings.null_tokens == 4096
    assert all(line in out for line in found.table().splitlines())
    assert made.about.files.keys() == {"probing.json", "concepts.json", "nulls.json"}  # no weights of nulls remain


def test_nulls_of_a_transcoder_are_refused_in_a_sentence(cli, root):
    out = cli(root, *EVALUATE, "across", "--name", "none", "--contexts", 0, "--nulls")
    assert "null dictionaries was not measured: null dictionaries are autoencoders" in out
