"""`workbench own`: from a model and a text to a whole workspace, refused early, continued where it stopped."""

import json
import shlex
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from interp.errors import ConfigError, MismatchError, ResourceError, program
from interp.tracing.prompts import AnsweredPrompt
from interp.workspace import Workspace
from saes.features.neurons import NeuronLabels
from saes.training.stored import StoredSAE
from workbench import costs
from workbench.__main__ import main, parse
from workbench.costs import Cost, CostSizes, ModelPace, check_room
from workbench.options import command_line
from workbench.own import WHOLE, Own, OwnFacts

MODEL = "small:mlp-2l"
MADE = (
    *("recording", "sae", "features", "evaluation", "atlas", "heads", "neurons", "induction_circuit", "word_geometry"),
    "proof",
)
FEW = replace(WHOLE, layers=1, background=1, lists=("digits",), proofs=1, draws=5)


@pytest.fixture(scope="module", autouse=True)
def _few():
    """Make a whole run small; its steps stay the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.own.WHOLE", FEW)
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 60 documents of 200 bytes in a column that is not called text."""
    path = tmp_path_factory.mktemp("own") / "pages.jsonl"
    line = "The page with number {} says what the other pages say, but for its number, which is {} here. "
    path.write_text("\n".join(json.dumps({"body": (line.format(n, n) * 3)[:200]}) for n in range(60)))
    return path


def words(text: Path, workspace: Path, *more: str) -> list[str]:
    options = ["--column", "body", "--name", "mine", "--tokens", "8000", "--rounds", "0", "--no-serve", *more]
    return ["own", MODEL, "--text", str(text), "--workspace", str(workspace), *options]


@pytest.fixture(scope="module")
def made(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the workspace that the command makes."""
    workspace = tmp_path_factory.mktemp("made") / "ws"
    assert main(words(text, workspace, "--no-doctor")) == 0
    return workspace


def test_one_command_makes_every_artefact_of_one_name(made: Path) -> None:
    workspace = Workspace(made)
    names = {kind: workspace.names(kind) for kind in MADE}
    [proof] = names.pop("proof")
    assert names.pop("atlas") == ["mine-features"]
    assert names.pop("induction_circuit") == ["induction-mine"]
    assert all(name == ["mine"] for name in names.values()), names
    assert proof.startswith("mine-")
    assert workspace.open(NeuronLabels, "mine").layers == (1,)
    trained = workspace.open(StoredSAE, "mine")
    assert (trained.model, trained.recording, trained.d_sae) == (MODEL, "mine", 8_000 // 25 // 64 * 64)


def test_a_step_that_is_missing_is_made_and_the_others_are_found(
    made: Path, text: Path, tmp_path: Path, capsys
) -> None:
    shutil.copytree(made, tmp_path / "ws")
    shutil.rmtree(tmp_path / "ws" / "evaluations" / "mine")
    assert main(words(text, tmp_path / "ws", "--no-doctor")) == 0
    out = capsys.readouterr().out
    assert out.count("found ") == len(MADE) - 1
    assert "all layers: workbench neurons mine --workspace" in out.replace(program(), "workbench")
    assert "Evaluate the dictionary" in out.partition("in all")[0]
    assert "Map the features" not in out.partition("in all")[0]


def test_the_plan_names_every_step_and_makes_none(text: Path, tmp_path: Path, capsys) -> None:
    assert main(words(text, tmp_path / "ws", "--plan")) == 0
    out = capsys.readouterr().out
    assert out.count("in memory") == len(MADE) + 2
    assert "0 of the prompts with known answers are answered" in out
    assert not (tmp_path / "ws").exists()


def test_every_step_is_a_command_that_can_be_typed(text: Path, tmp_path: Path) -> None:
    own = parse(words(text, tmp_path / "ws", "--seed", "3", "--dtype", "bfloat16"))
    assert isinstance(own, Own)
    answer = AnsweredPrompt("after-March", 0.5, "January, February, March,", " April", " May")
    facts = OwnFacts(CostSizes(8_000, 40_000, 64, 128, 0), "blocks.0.hook_resid_post", 18, 128, (answer,), 64)
    steps = own.steps(facts)
    assert [step.name for step in steps if step.kind == "attribution_graph"] == ["after-March-mine"]
    for step in steps:
        assert step.verb.workspace == own.workspace
        assert getattr(step.verb, "seed", 3) == 3
        assert getattr(step.verb, "compute", getattr(step.verb, "dtype", "bfloat16")) == "bfloat16"
        typed = shlex.split(command_line(step.verb))[1:]
        assert parse(typed) == step.verb, typed


@pytest.mark.parametrize(
    ("lines", "message"), [(60, "expected at least 5,000 tokens of 20 documents"), (0, "holds no text")]
)
def test_too_little_text_is_refused(lines: int, message: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "little.jsonl"
    path.write_text("\n".join(json.dumps({"body": "A short line."}) for _ in range(lines)))
    assert main(words(path, tmp_path / "ws")) == 2
    assert message in capsys.readouterr().err


def test_what_does_not_fit_is_refused_before_it_begins(text: Path, tmp_path: Path, monkeypatch) -> None:
    own = parse(words(text, tmp_path / "ws"))
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as patch:
        patch.setattr(costs.shutil, "disk_usage", lambda _: usage(1_000))
        with pytest.raises(ResourceError, match=r"need [\d.]+ MB at .*ws, 1.0 kB are free; take fewer --tokens"):
            own.run()
    monkeypatch.setattr(costs, "free_memory", lambda _: 1_000)
    with pytest.raises(ResourceError, match=r"of memory, 1.0 kB are free; take a smaller --d-sae"):
        own.run()
    assert not (tmp_path / "ws").exists()


def test_another_text_or_size_under_this_name_is_refused(made: Path, text: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(text.read_text())
    with pytest.raises(MismatchError, match=r"another recording named mine.*choose another --name"):
        parse(words(other, made)).run()
    with pytest.raises(MismatchError, match="another dictionary named mine: 320 latents"):
        parse(words(text, made, "--d-sae", "64")).run()


def test_a_model_that_fails_its_examination_is_not_used(text: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("interp.doctor.certificate.Certificate.failed", True)
    with pytest.raises(MismatchError, match="nothing was computed with it; --no-doctor continues"):
        parse(words(text, tmp_path / "ws")).run()
    assert not Workspace(tmp_path / "ws").names("recording")


def lacking(made: Path, folder: Path, *kinds: str) -> Path:
    """Return a copy of the workspace without the artefacts of some kinds."""
    shutil.copytree(made, folder)
    for kind in kinds:
        shutil.rmtree(Workspace(folder).path(kind, "mine").parent)
    return folder


def test_a_step_that_fails_stops_only_those_that_read_its_result(
    made: Path, text: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    folder = lacking(made, tmp_path / "ws", "features", "evaluation", "heads", "proof")

    def full(verb: object, run: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    with monkeypatch.context() as patch:
        patch.setattr("workbench.verbs.features.DescribeFeatures.measure", full)
        assert main(words(text, folder, "--no-doctor")) == 1
    out = capsys.readouterr().out
    assert "Describe every feature: failed: disk full while writing /somewhere" in out
    assert "Prove features: left out, since it reads the features" in out
    assert {kind: len(Workspace(folder).names(kind)) for kind in ("evaluation", "heads", "features", "proof")} == {
        "evaluation": 1, "heads": 1, "features": 0, "proof": 0,
    }  # fmt: skip
    assert main(words(text, folder, "--no-doctor")) == 0
    assert Workspace(folder).names("proof") == Workspace(made).names("proof")


def test_an_interrupted_command_continues_where_it_stopped(
    made: Path, text: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    folder = lacking(made, tmp_path / "ws", "evaluation", "heads")

    def stopped(verb: object, run: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("workbench.verbs.heads.Heads.measure", stopped)
        assert main(words(text, folder, "--no-doctor")) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert Workspace(folder).names("evaluation") == ["mine"]
    assert main(words(text, folder, "--no-doctor")) == 0
    assert capsys.readouterr().out.count("found ") == len(MADE) - 1


def test_a_dictionary_that_fails_its_examination_is_opened_and_said(
    made: Path, text: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    failed = property(lambda certificate: bool(certificate.settings.dictionary))
    monkeypatch.setattr("interp.doctor.certificate.Certificate.failed", failed)
    assert main(words(text, lacking(made, tmp_path / "ws"))) == 1
    out = capsys.readouterr().out
    assert "Examine the dictionary: " in out.partition("Not everything went well")[2]
    assert "Open it with" in out


def test_a_brief_run_stops_after_the_heads(text: Path, tmp_path: Path) -> None:
    own = parse(["own", MODEL, "--text", str(text), "--brief", "--no-doctor", "--workspace", str(tmp_path)])
    assert isinstance(own, Own)
    facts = OwnFacts(CostSizes(8_000, 40_000, 64, 128, 3), "blocks.0.hook_resid_post", 2, 128, (), 64)
    kinds = [step.kind for step in own.steps(facts)]
    assert kinds == ["recording", "sae", "jacobian_lens", "features", "evaluation", "atlas", "heads"]
    assert (own.scale.graphs, own.scale.proofs) == (0, 0)


def test_a_quick_run_has_its_own_name_and_a_quick_examination(text: Path, tmp_path: Path) -> None:
    own = parse(["own", MODEL, "--text", str(text), "--quick", "--workspace", str(tmp_path)])
    assert isinstance(own, Own)
    assert (own.made, own.scale.tokens) == ("small-mlp-2l-quick", 40_000)
    facts = OwnFacts(CostSizes(8_000, 40_000, 64, 128, 3), "blocks.0.hook_resid_post", 2, 128, (), 64)
    first, *_, last = own.steps(facts)
    assert first.verb.quick
    assert last.verb.quick


def test_text_in_another_language_is_said_before_the_work(tmp_path: Path, capsys) -> None:
    path = tmp_path / "german.jsonl"
    line = "Der Hund, der gestern im Garten war, hat heute nur noch Hunger und keine Lust auf den Weg nach Hause. "
    path.write_text("\n".join(json.dumps({"body": f"{n} {line * 3}"}) for n in range(60)))
    assert main(words(path, tmp_path / "ws", "--plan", "--no-doctor")) == 0
    assert "0% of the words of" in capsys.readouterr().out


def test_memory_for_the_model_but_not_for_the_lens_names_the_next_command(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(costs, "free_memory", lambda _: 3e9)
    steps = [("Record", Cost(1, 2e9, 1)), ("Fit a Jacobian lens", Cost(1, 5e9, 1))]
    check_room(steps[:1], tmp_path, "cpu", str)
    with pytest.raises(
        ResourceError, match=r"lens` needs 5.0 GB of memory, 3.0 GB are free; leave.*own \{'rounds': 0\}"
    ):
        check_room(steps, tmp_path, "cpu", lambda **changes: f"own {changes}")


def test_vllm_records_and_the_other_steps_keep_their_device(text: Path, tmp_path: Path) -> None:
    given = {"engine": "vllm", "tensor_parallel": 2, "device": "cpu", "workspace": tmp_path}
    own = Own(model="small:mlp-2l", text=str(text), **given)
    facts = OwnFacts(CostSizes(8_000, 40_000, 64, 128, 3), "blocks.0.hook_resid_post", 2, 128, (), 64)
    lines = {step.kind: command_line(step.verb) for step in own.steps(facts)}
    assert "--engine vllm --tensor-parallel 2" in lines["recording"]
    assert "--device" not in lines["recording"]
    assert "--device cpu" in lines["sae"]
    assert [kind for kind, line in lines.items() if "--engine" in line] == ["recording"]
    with pytest.raises(ConfigError, match="add --engine vllm"):
        replace(own, engine="bridge")


def test_settings_out_of_range_are_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        parse(words(text, tmp_path / "ws", "--k", "0"))


def test_costs_grow_with_what_they_follow_from() -> None:
    pace = ModelPace(
        load=10, batch=1, blocks=2, logits=3, rounded=1, backward=2, product=0.01, weights=5e8, values=5e8, fit=1e9,
        layers=12, hook_points=500, d_vocab=50_000,
    )  # fmt: skip
    small, large = (costs.costs(CostSizes(n, 5 * n, 512, 4_096, 10), pace) for n in (100_000, 200_000))
    assert large["recording"].disk == 2 * small["recording"].disk == 2 * 100_000 * (2 * 512 + 12)
    assert large["sae"].seconds - 5 == pytest.approx(2 * (small["sae"].seconds - 5))
    assert small["jacobian_lens"].seconds == pytest.approx(
        10 + 10.4 * 512 * 48 / 2048 * 2 + 9 * 2 + 12 * (5 * 256 + 7 * 128) / 2048 * 1
    )
    wide = costs.costs(CostSizes(100_000, 500_000, 512, 4_096, 10), replace(pace, logits=15, d_vocab=250_000))
    assert wide["evaluation"].seconds < 2 * small["evaluation"].seconds, "a sample of positions is read"
    assert wide["recording"] == small["recording"]
