"""An engine gives the rows of the model, whatever order and batches it runs them in; the doctor names what is wrong.

vLLM is stood for by `fixtures/fake_vllm`, in a process as the real one; `tests.campaigns.engine` asks the real one.
"""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from interp import RecordConfig, record
from interp.doctor.engine import LONGEST, contexts_of, examine_engine
from interp.engines import vllm
from interp.engines.bridge import Bridge
from interp.engines.modules import sites_of
from interp.engines.vllm import Vllm, start_vllm
from interp.errors import ConfigError, MismatchError, MissingError, ResourceError, UnknownNameError
from interp.models.adapter import run_with_hooks
from interp.models.identity import weight_hash
from interp.models.loading import load_model, load_tokenizer
from interp.models.passes import Capture
from interp.recording.live import open_recording
from interp.recording.store import Recording
from interp.text.corpora import Document
from saes.kinds.config import BatchTopKConfig
from saes.training.config import TrainConfig
from saes.training.train import train_sae
from tests.campaigns.engine import MISTAKES, N_OF_A_MISTAKE
from workbench.__main__ import main

FAKE = Path(__file__).parents[1] / "fixtures" / "fake_vllm"
RECORDERS = FAKE.parent / "vllm_recorders"
POINTS = ["blocks.1.hook_resid_post", "blocks.1.hook_attn_out", "blocks.2.mlp.hook_in"]
SMALL = RecordConfig(tokens=200, context_length=16, batch_size=4, shard_contexts=4, dtype="float32")


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> str:
    """A Llama of three layers and a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("engines") / "llama"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=24, intermediate_size=36, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=3, max_position_embeddings=96, bos_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).eval().save_pretrained(path)
    words = {f"w{i}": i for i in range(20)} | {word: i + 20 for i, word in enumerate(_WORDS)}
    plain = Tokenizer(models.WordLevel(words, unk_token="w1"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="w0", unk_token="w1").save_pretrained(path)
    return str(path)


_WORDS = ("the", "of", "a", "and", "in", "is", "to", "it", "was", "that", "by", "as", "are", "from", "or", "with")
TEXTS = [Document(" ".join(f"w{(i * i + 3 * n) % 20}" for i in range(40)), str(n), "") for n in range(8)]


@contextmanager
def started(spec: str, recorder: str = vllm.RECORDER, **options: object) -> Iterator[Vllm]:
    ranks = options.pop("ranks", 1)
    with start_vllm(
        spec, ranks=ranks, python=sys.executable, options=options, recorder=recorder, recorder_folder=FAKE
    ) as engine:
        yield engine


class InThisProcess:
    """The process of an engine without a process, which takes seconds to start."""

    def __init__(self, scratch: Path):
        self.scratch, self.engine = scratch, None

    def ask(self, **command: object) -> dict[str, object]:
        process = importlib.import_module("_process")
        if self.engine is None:
            self.engine, about = process.load(**command)
            return about
        return process.run(self.engine, **command)


@pytest.fixture
def engine_here(llama: str, tmp_path: Path, monkeypatch):
    """Return a function that makes an engine with a recorder and options of its own."""
    for folder in (FAKE, RECORDERS, Path(vllm.__file__).parent / "inside_vllm"):
        monkeypatch.syspath_prepend(str(folder))

    def make(recorder: str = vllm.RECORDER, ranks: int = 1, **options: object) -> Vllm:
        engine = Vllm(llama, ranks, "float32", None, Path(sys.executable))
        engine.attach(InThisProcess(tmp_path), recorder, options)
        return engine

    yield make
    for name in ("vllm", "_process", "_worker", "faulty"):
        sys.modules.pop(name, None)


def test_rows_are_those_of_the_bridge_in_order(llama: str, tmp_path: Path) -> None:
    with started(llama) as engine:
        process, scratch = engine._process._popen, engine._process.scratch
        assert engine.about == "vllm 0.32.0 on cpu"
        made = record(engine, TEXTS, tmp_path / "engine", SMALL, hook_points=POINTS)
    assert process.poll() is not None
    assert not scratch.exists()
    record(load_model(llama), TEXTS, tmp_path / "bridge", SMALL, hook_points=POINTS)
    assert made.settings.text_read.engine == "vllm 0.32.0 on cpu"
    ours, theirs = Recording(tmp_path / "engine"), Recording(tmp_path / "bridge")
    assert (ours.weight_hash, ours.n_rows, ours.n_shards) == (theirs.weight_hash, theirs.n_rows, theirs.n_shards)
    for shard in range(ours.n_shards):
        torch.testing.assert_close(ours.token_shard(shard).tokens, theirs.token_shard(shard).tokens)
        for name in POINTS:
            one, other = ours.activation_shard(name, shard), theirs.activation_shard(name, shard)
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_dead_engine_leaves_finished_shards_and_the_next_run_goes_on(llama: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_VLLM_DIES", "3")  # the first call measures the widths
    with started(llama) as engine, pytest.raises(ResourceError, match=r"vLLM ended .* run it again"):
        record(engine, TEXTS, tmp_path / "cut", SMALL, hook_points=POINTS[:1])
    monkeypatch.delenv("FAKE_VLLM_DIES")
    with started(llama) as engine:
        record(engine, TEXTS, tmp_path / "whole", SMALL, hook_points=POINTS[:1])
        computed: list[int] = []
        record(
            engine, TEXTS, tmp_path / "cut", SMALL, hook_points=POINTS[:1],
            progress=lambda done, total, info: computed.append(info["shard"]),
        )  # fmt: skip
    assert computed[0] == 1
    assert Recording(tmp_path / "cut").manifest.content_hash == Recording(tmp_path / "whole").manifest.content_hash


def test_added_vectors_do_what_they_do_in_the_bridge(engine_here, llama: str) -> None:
    tokens, vector = torch.arange(20).reshape(2, 10), torch.randn(24, generator=torch.Generator().manual_seed(1))
    names = ["blocks.1.hook_resid_post", "blocks.2.hook_resid_post"]
    engine, bridge = engine_here(), Bridge(load_model(llama))

    def rows(one, adding):
        with one.reading(names, adding=adding) as reader:
            return reader(tokens)

    before = rows(engine, None)
    for point in ("blocks.1.hook_resid_post", "blocks.2.hook_mlp_out"):
        ours, theirs = rows(engine, {point: vector}), rows(bridge, {point: vector})
        for name in names:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(before[names[1]], ours[names[1]], atol=0.1)
    torch.testing.assert_close(rows(engine, None), before)  # they are gone with their block
    for one in (engine, bridge):
        with pytest.raises(UnknownNameError), one.reading(names, adding={"blocks.1.hook_resid_mid": vector}):
            pass
        with (
            pytest.raises(ConfigError, match=r"24 values, .* \(7,\)"),
            one.reading(names, adding={names[0]: vector[:7]}),
        ):
            pass


def test_training_reads_a_live_recording_from_the_engine_that_it_names(
    engine_here, llama: str, tmp_path: Path, monkeypatch
) -> None:
    live = replace(SMALL, tokens=310, live=True)
    record(engine_here(), TEXTS, tmp_path / "live", live, hook_points=POINTS[:1])
    record(load_model(llama), TEXTS, tmp_path / "bridge", live, hook_points=POINTS[:1])
    given = {"python": sys.executable, "recorder_folder": FAKE}
    monkeypatch.setattr(vllm, "start_vllm", partial(start_vllm, **given))
    train, sae = TrainConfig(tokens=256, batch_size=32, heldout_fraction=0.4), BatchTopKConfig(d_sae=16, k=4)
    recordings = [open_recording(tmp_path / name) for name in ("live", "bridge")]
    assert [recording.reads_ahead() for recording in recordings] == [True, False]
    assert recordings[0]._first_rows([(0, torch.arange(9))], 2) == [0, 9, 9], "the first rank has the engine"
    ours, theirs = (train_sae(r, POINTS[0], sae, train, tmp_path / "saes" / r.folder.name) for r in recordings)
    torch.testing.assert_close(ours.W_dec, theirs.W_dec, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        recordings[0].activation_shard(POINTS[0], 1), recordings[1].activation_shard(POINTS[0], 1), rtol=1e-4, atol=1e-4
    )
    process = recordings[0]._engine._process._popen
    del recordings
    gc.collect()
    assert process.poll() is not None, "it ends with the recording"
    monkeypatch.setenv("FAKE_VLLM_VERSION", "0.32.7")
    with pytest.raises(MismatchError, match=r"recorded with vllm 0\.32\.0 on cpu, here is vllm 0\.32\.7"):
        open_recording(tmp_path / "live").activation_shard(POINTS[0], 0)


def test_the_doctor_passes_a_sound_engine(engine_here) -> None:
    found = examine_engine(engine_here())
    assert [check.verdict for check in found.checks] == ["passed"] * 6
    assert [check.came.partition(",")[0] for check in found.checks[1:4]] == [
        "9 hook points", "3 hook points", "6 hook points",
    ]  # fmt: skip


def test_a_narrow_precision_is_allowed_what_transformers_needs_in_it(engine_here) -> None:
    engine = engine_here()
    engine.precision = "bfloat16"
    found = examine_engine(engine, contexts=contexts_of(engine.tokenizer, 16, 24, seed=0))
    batches = next(check for check in found.checks if check.name == "other batches")
    assert not found.failed
    assert float(batches.came.partition("(")[2].partition(" ")[0]) > 1e-3
    assert "two runs of transformers differ by" in batches.came


CHUNKS = {"enable_chunked_prefill": True}
PLANTED = {"FirstPieces": {"chunk": 8}, "LastPieces": {"chunk": 4}}


@pytest.mark.parametrize("name", MISTAKES)
def test_the_doctor_names_the_mistake(engine_here, name: str) -> None:
    mistake = MISTAKES[name]
    options = {**mistake.options, **PLANTED.get(name, {})}
    engine = engine_here(f"faulty.{name}", ranks=mistake.ranks, **options)
    found = examine_engine(engine, contexts=contexts_of(engine.tokenizer, N_OF_A_MISTAKE, LONGEST, seed=0))
    failed = found.with_verdict("failed")
    assert any(mistake.words in check.came for check in failed), [check.came for check in found.checks]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows, contexts: rows([[0, *context] for context in contexts]), "a BOS token"),
        (
            lambda rows, contexts: rows([[0] * (max(map(len, contexts)) - len(c)) + c for c in contexts]),
            "padding before",
        ),
    ],
)
def test_the_doctor_names_other_tokens(engine_here, monkeypatch, change, words: str) -> None:
    """A BOS that was put before prompts, or padding that was attended to."""
    honest = Vllm.rows

    def changed(self, contexts):
        longer: list[list[int]] = []
        given = change(lambda new: longer.extend(new) or honest(self, new), contexts)
        ends = torch.tensor([len(context) for context in longer]).cumsum(0).tolist()
        return {
            name: torch.cat([rows[end - len(context) : end] for end, context in zip(ends, contexts, strict=True)])
            for name, rows in given.items()
        }

    monkeypatch.setattr(Vllm, "rows", changed)
    found = examine_engine(engine_here())
    assert any(words in check.came for check in found.with_verdict("failed")), [check.came for check in found.checks]


def test_a_sound_recorder_refuses_what_an_engine_leaves_out(engine_here) -> None:
    """Prompts in chunks and cached prefixes are never recorded in part."""
    engine = engine_here(**CHUNKS)
    with engine.reading(POINTS[:1]) as reader, pytest.raises(ResourceError, match="0 of 2 contexts as a whole"):
        reader(torch.arange(40).reshape(2, 20))
    found = examine_engine(engine)
    assert found.with_verdict("failed")[0].name == "whole contexts"


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (
            {"ranks": 4},
            ConfigError,
            "6 attention heads, which 4 processes cannot share; --tensor-parallel 1, 2, 3 or 6",
        ),
        ({"python": "nowhere/python"}, MissingError, "make engine-vllm"),
    ],
)
def test_what_cannot_start_says_what_to_do(llama: str, given, error, words: str) -> None:
    with pytest.raises(error, match=words), start_vllm(llama, **{"python": sys.executable, **given}):
        pass


def test_another_version_and_a_python_without_vllm_are_refused(llama: str, monkeypatch) -> None:
    with pytest.raises(MissingError, match="make engine-vllm"), start_vllm(llama, python=sys.executable):
        pass
    monkeypatch.setenv("FAKE_VLLM_VERSION", "0.9.1")
    with pytest.raises(ConfigError, match=r"vLLM 0\.9\.1"), started(llama):
        pass


def test_models_without_files_of_transformers_are_refused(engine_here) -> None:
    with pytest.raises(ConfigError, match="small model of the workbench's own"), started("small:mlp-2l"):
        pass
    with pytest.raises(ConfigError, match="--engine bridge"):
        sites_of({"transformer.h.0.attn"}, 2, "gpt2")
    with pytest.raises(UnknownNameError), engine_here().reading(["blocks.0.attn.hook_pattern"]):
        pass


@pytest.fixture
def spread(llama: str, monkeypatch):
    """The model with most of its layers on disk."""
    from interp.models import _sharded

    monkeypatch.setattr(_sharded, "free_memory", lambda device: 30_000)
    return load_model(llama, sharded=True)


def test_a_model_over_devices_has_the_same_bits(llama: str, spread, tmp_path: Path) -> None:
    whole = load_model(llama)
    assert sum(parameter.is_meta for parameter in spread.original_model.parameters()) > 9
    assert weight_hash(spread) == weight_hash(whole)
    for name, model in (("spread", spread), ("whole", whole)):
        record(model, TEXTS, tmp_path / name, SMALL, hook_points=POINTS)
    ours, theirs = Recording(tmp_path / "spread"), Recording(tmp_path / "whole")
    assert ours.artefact.settings.text_read.engine == "sharded"
    for name in POINTS:
        assert torch.equal(ours.activation_shard(name, 0), theirs.activation_shard(name, 0))


def test_edits_and_gradients_cross_the_devices(llama: str, spread) -> None:
    tokens = torch.arange(20)[None]

    def outcome(model):
        names = ["blocks.0.hook_resid_post", "blocks.2.hook_resid_post"]
        with Capture(model, names, gradients=True) as capture:
            first, last = capture(tokens).values()
        (gradient,) = torch.autograd.grad(last[0, -1].sum(), first)
        return gradient, run_with_hooks(model, tokens, [("blocks.1.hook_resid_post", lambda value, hook: 2 * value)])

    for ours, theirs in zip(outcome(spread), outcome(load_model(llama)), strict=True):
        assert float(theirs.abs().max()) > 0
        assert torch.equal(ours, theirs)


def test_what_is_not_spread_is_refused(llama: str, capsys) -> None:
    with pytest.raises(ConfigError, match="fits on one device"):
        load_model("small:mlp-2l", sharded=True)
    with pytest.raises(ConfigError, match="attention='eager'"):
        load_model(llama, sharded=True, attention="sdpa")
    assert main(["heads", llama, "--engine", "sharded"]) == 2
    assert "only the default engine holds" in capsys.readouterr().err


def test_contexts_have_many_lengths(llama: str) -> None:
    contexts = contexts_of(load_tokenizer(llama), 64, 48, seed=0)
    assert len({len(context) for context in contexts}) > 20
    assert min(map(len, contexts)) == 1


def test_record_examines_an_engine_once_and_refuses_a_wrong_one(
    llama: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    python = tmp_path / "python"  # one that finds the stand-in, as an environment with vLLM would
    python.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{FAKE}:{RECORDERS}" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv(vllm.PYTHON, str(python))
    monkeypatch.setenv("WORKBENCH_DOCTOR", "on")
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("\n\n".join(text.text for text in TEXTS))
    asked = ["record", llama, "--engine", "vllm", "--corpus", "text.txt", "--tokens", "100", "--context-length", "16"]
    assert not main([*asked, "--name", "one"])
    assert "6 of 6 checks passed" in capsys.readouterr().out
    assert any(key.endswith("llama-vllm") for key in Recording(Path("workspace/recordings/one")).manifest.parents)
    assert not main([*asked, "--name", "two"])
    assert "doctor" not in capsys.readouterr().out
    monkeypatch.setattr(vllm, "start_vllm", partial(start_vllm, recorder="faulty.LayerOff"))
    assert main(["doctor", llama, "--engine", "vllm"]) == 1
    assert main([*asked, "--name", "three"]) == 2
    assert "a layer off by one" in capsys.readouterr().err
    assert not Path("workspace/recordings/three").exists()
    for wrong in (["--tensor-parallel", "4"], ["--device", "cpu"]):
        assert main([*asked, "--name", "four", *wrong]) == 2


def test_options_that_another_engine_lacks_are_refused_before_anything_loads(llama: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr("interp.models.loading.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setenv(vllm.PYTHON, sys.executable)
    for wrong, words in {
        f"record {llama} --tensor-parallel 2": "add --engine vllm",
        f"doctor {llama} --engine sharded --tensor-parallel 2": "add --engine vllm",
        f"own {llama} --text docstrings --tensor-parallel 2": "add --engine vllm",
        f"own {llama} --text docstrings --engine vllm --tensor-parallel 4": "6 attention heads",
        f"own {llama} --text docstrings --engine vllm --hook-point blocks.1.mlp.hook_post": "hook point",
        "train demo --engine vllm": "record --live`",
    }.items():
        assert main(wrong.split()) == 2
        assert words in capsys.readouterr().err
