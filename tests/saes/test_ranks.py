"""Two processes that `torchrun` starts do what one does: the same steps, the same recording; none waits for ever."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import rank_worker as worker
import torch
from planted import HOOK, write_recording
from safetensors.torch import load_file, save_file

from interp.artifacts import Manifest, open_artefact, partial_path, read_manifest, verify
from interp.errors import ConfigError, MismatchError, OtherRankError
from interp.ranks import ALONE, Ranks
from interp.recording.store import Recording
from saes.kernels._plain import PlainOps
from saes.kernels.compiled import CompiledOps
from saes.kernels.spread import Spread
from saes.kernels.state import BY_LATENT, RunState, TrainState
from saes.kinds.config import BatchTopKConfig, MatryoshkaConfig, TopKConfig
from saes.kinds.registry import recipe_of
from saes.training.config import TrainConfig
from saes.training.log_checks import row_problems
from saes.training.run import Checkpoint, Position, read_checkpoint, shares, write_checkpoint
from saes.training.schedule import plan
from saes.training.stored import StoredSAE
from saes.training.train import train_sae
from saes.weights.folder import WEIGHTS, load_sae

CLOSE = 1e-10
TWO = [Ranks(0, 2), Ranks(1, 2)]
TRAIN = TrainConfig(tokens=10_240, batch_size=256, checkpoint_every=10, log_every=4)

pytestmark = pytest.mark.usefixtures("one_thread")


def make_inputs(folder: Path) -> None:
    """A recording of planted directions, the same with one NaN, and a text to record."""
    generator = torch.Generator().manual_seed(1)
    n, d, context = 8_000, 32, 40
    directions = torch.nn.functional.normalize(torch.randn(64, d, generator=generator), dim=1)
    on = torch.rand(n, 64, generator=generator) < 3 / 64
    x = (on * (1 + torch.rand(n, 64, generator=generator))) @ directions + torch.randn(d, generator=generator)
    document = torch.arange(n) // 200
    document[torch.arange(n) % context == 0] = -1
    made = {"context_length": context, "shard_contexts": 100}
    recording = write_recording(folder / "recordings" / "planted", x, torch.ones(n), document, **made)
    damaged = folder / "recordings" / "damaged"
    shutil.copytree(recording.folder, damaged)
    file = damaged / HOOK / "00000.safetensors"
    tensors = load_file(file)
    tensors["activations"][int(recording.real_rows(0, "train")[70]), 3] = float("nan")
    save_file(tensors, file)
    lines = [{"text": f"document {n} " + "abc def. " * (3 + n % 7), "id": str(n)} for n in range(150)]
    (folder / "text.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def torchrun(*arguments: object, ranks: int = 2) -> subprocess.CompletedProcess:
    """Start the worker on so many ranks, as a user would."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return subprocess.run(
        [*command, worker.__file__, *map(str, arguments)], env=quiet, capture_output=True, text=True, timeout=400
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """The folder in which two ranks did all that needs no death."""
    folder = tmp_path_factory.mktemp("ranks")
    make_inputs(folder)
    ran = torchrun("whole", folder)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-6000:]
    (folder / "said.txt").write_text(ran.stdout + ran.stderr)
    return folder


@pytest.fixture(scope="module")
def recording(done: Path) -> Recording:
    return Recording(done / "recordings" / "planted")


@pytest.fixture(scope="module")
def alone(recording, tmp_path_factory) -> Path:
    """The dictionary that one process trains."""
    folder = tmp_path_factory.mktemp("alone") / "sae"
    train_sae(recording, HOOK, BatchTopKConfig(d_sae=64, k=3), TRAIN, folder)
    return folder


def difference(done: Path, name: str, kind: str, ops=CompiledOps) -> float:
    """Largest difference, in weights, moments, counters and numbers of every step, from one process."""
    learned = worker.LEARNED.get(kind)
    state, seen = worker.learn(learned, ops()) if learned else worker.take_steps(worker.KINDS[kind], ops())
    return steps_apart(done, name, state, seen)


def steps_apart(done: Path, name: str, state: RunState, seen: list) -> float:
    """Largest difference of what two ranks saved under `name` from the steps of one process."""
    theirs = load_file(done / f"{name}.safetensors")
    assert theirs.keys() == state.tensors().keys()
    apart = [float((theirs[n].double() - tensor.double()).abs().max()) for n, tensor in state.tensors().items()]
    said = json.loads((done / f"{name}.json").read_text())
    for step, result in zip(said, seen, strict=True):
        apart += [abs(step[key] - value) for key, value in result._asdict().items() if value is not None]
    return max(apart)


@pytest.mark.parametrize("kind", [*worker.KINDS, *worker.LEARNED])
def test_two_ranks_that_share_tokens_take_the_steps_of_one(done, kind):
    assert difference(done, f"tokens {kind}", kind) < CLOSE


@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
def test_two_ranks_that_share_latents_take_the_steps_of_one(done, kind):
    assert difference(done, f"latents {kind}", kind) < CLOSE


def test_torch_operations_spread_like_compiled_loops(done):
    assert difference(done, "tokens plain", "batchtopk", PlainOps) < CLOSE
    assert difference(done, "latents plain", "topk", PlainOps) < CLOSE


def test_ranks_that_select_for_themselves_learn_something_else(done):
    """The null: what the global selection is for."""
    state, _ = worker.take_steps(worker.KINDS["batchtopk"], CompiledOps())
    assert float((load_file(done / "tokens selfish.safetensors")["W_dec"] - state.W_dec).abs().max()) > 1e-2


def test_those_steps_clip_revive_the_dead_and_choose_among_them():
    """Otherwise the comparison above would say nothing about these parts."""
    _, seen = worker.take_steps(worker.KINDS["topk"], CompiledOps())
    assert seen[0].aux > 0
    assert seen[0].n_dead > 2 * worker.SETTINGS.k_aux  # more than the cap
    assert int((worker.make_state(worker.KINDS["topk"]).silent >= worker.SETTINGS.dead_window).sum()) == seen[0].n_dead
    free = worker.SETTINGS.__class__(**{**worker.SETTINGS.__dict__, "clip_norm": 1e9})
    x, _ = worker.batch(worker.KINDS["topk"], 0)
    loose = worker.Stepper(free, recipe_of(worker.KINDS["topk"]), CompiledOps())
    unclipped, clipped = (worker.make_state(worker.KINDS["topk"]) for _ in range(2))
    loose.step(unclipped, x, 1e-2)
    worker.Stepper(worker.SETTINGS, recipe_of(worker.KINDS["topk"]), CompiledOps()).step(clipped, x, 1e-2)
    assert not torch.allclose(unclipped.moments["W_dec"][0], clipped.moments["W_dec"][0])


def test_among_equal_values_two_ranks_choose_those_that_one_chooses(done):
    pre, found = worker.tied_values(), load_file(done / "selections.safetensors")
    assert len(found) == 14
    for name, theirs in found.items():
        _, how, k = name.split()
        ops = CompiledOps()
        mine = ops.select_batch(pre, int(k) * len(pre)) if how == "batch" else ops.select_topk(pre, int(k))
        assert torch.equal(theirs, worker.dense(mine, pre)), name


def test_ranks_hear_of_each_others_failures_once(done):
    first, second = (json.loads((done / f"heard-{rank}.json").read_text()) for rank in (0, 1))
    assert first["total"] == second["total"] == 2.0
    assert first["least"] == second["least"] == -1.0
    assert first["collected"] == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
    assert first["none"] == second["none"] == "well"
    assert first["second"] == "OtherRankError: rank 1 stopped: WorkbenchError: the reason of rank 1"
    assert second["second"] == "WorkbenchError: the reason of rank 1"
    assert first["both"] == "WorkbenchError: the reason of rank 0"
    assert second["both"].startswith("OtherRankError: rank 0 stopped")


def test_a_bad_number_among_one_ranks_rows_stops_both_and_one_names_it(done):
    heard = sorted(json.loads((done / f"heard-{rank}.json").read_text())["nan"] for rank in (0, 1))
    assert heard[0].startswith("NonFiniteError: activations must be finite; row ")
    assert heard[1].startswith("OtherRankError: ")
    assert heard[0] in heard[1]


def test_what_ranks_cannot_share_is_refused_once(done):
    assert [json.loads((done / f"heard-{rank}.json").read_text())["no such kind"] for rank in (0, 1)] == [2, 2]
    said = (done / "said.txt").read_text()
    assert said.count("latents of a matryoshka dictionary cannot be shared") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the names of threads are read from /proc")
def test_no_thread_of_the_exchange_outlives_it(done):
    """One that still holds a tensor when the interpreter ends would abort the process."""
    for rank in (0, 1):
        heard = json.loads((done / f"heard-{rank}.json").read_text())
        assert heard["threads"]
        assert not heard["threads left"]


def test_only_what_divides_over_the_ranks_is_taken():
    sizes = plan(TRAIN, d_in=8, d_sae=64)
    topk, nested = TopKConfig(d_sae=64, k=3), MatryoshkaConfig(d_sae=64, k=3)
    assert shares(Spread(tokens=Ranks(1, 2)), recipe_of(nested), nested, sizes) == (slice(128, 256), slice(0, 64))
    assert shares(Spread(latents=Ranks(1, 2)), recipe_of(topk), topk, sizes) == (slice(0, 256), slice(32, 64))
    with pytest.raises(ConfigError, match="batch_size must divide over 3 ranks, got 256; 255 would"):
        shares(Spread(tokens=Ranks(0, 3)), recipe_of(topk), topk, sizes)
    with pytest.raises(ConfigError, match="d_sae must divide over 5 ranks"):
        shares(Spread(latents=Ranks(0, 5)), recipe_of(topk), topk, sizes)
    with pytest.raises(ConfigError, match="only those of topk and batchtopk"):
        shares(Spread(latents=Ranks(0, 2)), recipe_of(nested), nested, sizes)


def test_one_process_is_a_world_of_one():
    tensor = torch.arange(3.0)
    assert ALONE.add(tensor) is tensor
    assert ALONE.collect(tensor) is tensor
    assert ALONE.total(2.5) == ALONE.least(2.5) == 2.5
    assert ALONE.share(7, "rows") == slice(0, 7)
    with pytest.raises(MismatchError), ALONE.checked():
        raise MismatchError("as it is")


def test_initial_latents_of_a_rank_are_those_of_the_whole():
    for d, d_sae in ((20, 64), (3, 8196), (7, 4096)):
        whole, *parts = (
            TrainState.initial(torch.zeros(d), d_sae, generator=torch.Generator().manual_seed(4), d_in=5, latents=part)
            for part in (slice(None), *(ranks.share(d_sae, "latents") for ranks in TWO))
        )
        for name in ("W_enc", "W_dec"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights_apart(one: Path, other: Path) -> float:
    mine, theirs = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    assert mine.keys() == theirs.keys()
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


@pytest.mark.parametrize(("name", "shared"), [("two", "tokens"), ("shared", "latents")])
def test_the_command_line_on_two_ranks_trains_what_one_process_does(done, alone, name, shared):
    """In float32: sums in another order move single numbers, not what is learned."""
    folder = done / "saes" / name
    assert verify(folder) == []
    mine, theirs = open_artefact(StoredSAE, folder), open_artefact(StoredSAE, alone)
    assert mine.settings == theirs.settings
    assert mine.about.files.keys() == theirs.about.files.keys()
    assert mine.training.ranks[shared] == 2
    assert weights_apart(folder, alone) < 2e-3
    how = {"seed": TRAIN.seed, "heldout_fraction": TRAIN.heldout_fraction}
    assert row_problems(folder, Recording(done / "recordings" / "planted"), **how) == []
    for one, other in zip(log_of(folder), log_of(alone), strict=True):
        assert (one["step"], one["rows"]) == (other["step"], other["rows"])
        assert all(one[key] == pytest.approx(other[key], rel=1e-3, abs=1e-4) for key in ("fvu", "l0", "dead", "dense"))
    assert load_sae(folder).d_sae == 64


def test_a_sweep_whose_thresholds_start_from_data_is_that_of_one_process(done):
    assert worker.command(done, *worker.SWEEP, "--name", "sweep-one") == 0
    for size in ("d32", "d64"):
        two, one = (done / "saes" / f"sweep-{name}-{size}" for name in ("two", "one"))
        run = open_artefact(StoredSAE, two).training
        assert run.ranks["tokens"] == 2
        assert weights_apart(two, one) < 2e-3


def test_a_run_of_shared_latents_resumes_bit_for_bit(done):
    assert weights_apart(done / "saes" / "resumed", done / "saes" / "shared") == 0


def test_ctrl_c_between_steps_on_one_rank_ends_both_at_the_same_step(done):
    """While its caller looks at a health line; the run then goes on to the same weights."""
    heard = [json.loads((done / f"heard-{rank}.json").read_text())["told between steps"] for rank in (0, 1)]
    assert heard == ["OtherRankError: rank 1 stopped: KeyboardInterrupt: ", "KeyboardInterrupt: "]
    assert weights_apart(done / "saes" / "told", done / "saes" / "shared") == 0


def test_what_two_ranks_left_one_process_finishes(done, recording, alone):
    folder = done / "saes" / "left"
    parts = {file.name for file in (partial_path(folder) / "checkpoint").iterdir()}
    assert parts == {"00000020-0-of-2.safetensors", "00000020-1-of-2.safetensors"}
    train_sae(recording, HOOK, BatchTopKConfig(d_sae=64, k=3), TRAIN, folder)
    assert weights_apart(folder, alone) < 2e-3


@pytest.mark.parametrize("shared", ["tokens", "latents"])
def test_two_ranks_train_on_the_rows_of_one_and_run_the_model_once_for_both(done, shared):
    """The bits of one process, from half of its passes each; so the steps in float64 are those of one."""
    state, seen, rows, ran = worker.live_steps(done)
    theirs = [load_file(done / f"{shared} live {rank}.safetensors")["rows"] for rank in (0, 1)]
    parts = [part.split(128 if shared == "tokens" else 256) for part in theirs]
    read = torch.cat(list(itertools.chain(*zip(*parts, strict=True))) if shared == "tokens" else parts[1])
    assert torch.equal(read, rows)
    heard = [json.loads((done / f"heard-{rank}.json").read_text())["live"] for rank in (0, 1)]
    counts = [each[f"{shared} ran"] for each in heard]
    assert sum(counts) == ran
    assert max(counts) < 0.55 * ran
    assert steps_apart(done, f"{shared} live", state, seen) < CLOSE
    assert abs(seen[-1].loss - seen[0].loss) > 0.01  # the steps do something


@pytest.mark.parametrize("shared", ["tokens", "latents"])
def test_the_command_line_trains_live_on_two_ranks_what_one_process_does(done, shared):
    if not (done / "saes" / "live-one").exists():
        assert worker.command(done, *worker.LIVE, "--name", "live-one") == 0
    assert weights_apart(done / "saes" / f"live-{shared}", done / "saes" / "live-one") < 2e-3


def test_a_pass_that_fails_on_one_rank_ends_both_with_one_message(done):
    assert [json.loads((done / f"heard-{rank}.json").read_text())["live"]["failed"] for rank in (0, 1)] == [2, 2]
    assert (done / "said.txt").read_text().count("a pass of the model failed here") == 1


def manifest_of_text(folder: Path, name: str) -> Manifest:
    return read_manifest(folder / "recordings" / name)


@pytest.fixture(scope="module")
def recorded(done: Path) -> Manifest:
    """The recording that one process makes of the same text."""
    assert worker.command(done, *worker.RECORD, "--corpus", str(done / "text.jsonl"), "--name", "one") == 0
    return manifest_of_text(done, "one")


def test_two_ranks_record_the_bytes_of_one(done, recorded):
    two = manifest_of_text(done, "two")
    assert len(two.summary["shard_rows"]) > 12
    assert two.files == recorded.files
    assert two.content_hash == recorded.content_hash
    assert (two.summary.pop("ranks"), recorded.summary.pop("ranks")) == (2, 1)
    how = {"tokens_per_second": None}
    assert {**two.summary, **how} == {**recorded.summary, **how}
    assert verify(done / "recordings" / "two") == []


def finish_recording(done: Path, name: str) -> Manifest:
    """One process takes up what two ranks have left."""
    assert worker.command(done, *worker.RECORD, "--corpus", str(done / "text.jsonl"), "--name", name) == 0
    return manifest_of_text(done, name)


def test_a_recording_that_one_rank_stopped_is_finished_by_one_process(done, recorded):
    """Ctrl-C on one rank alone ends both; the other says nothing of its own."""
    heard = [json.loads((done / f"heard-{rank}.json").read_text())["stopped"] for rank in (0, 1)]
    assert heard == [2, 130]
    partial = partial_path(done / "recordings" / "stopped")
    logs = {log.name: log.read_text().count("\n") for log in partial.glob("shards*.jsonl")}
    assert logs == {"shards.jsonl": 5, "shards-1.jsonl": 4}  # shards 0, 2 ... 8 and 1, 3 ... 7
    assert finish_recording(done, "stopped").files == recorded.files


@pytest.mark.slow
def test_a_recording_whose_rank_was_killed_is_finished_by_one_process(done, recorded):
    ran = torchrun("record", done, "killed", 1, 9)
    assert ran.returncode != 0
    assert "lost another rank" in ran.stderr
    assert finish_recording(done, "killed").files == recorded.files


def step_of(folder: Path) -> int:
    found = read_checkpoint(folder)
    return found.state.step


def end_and_resume(done: Path, name: str, ends: list[tuple[str, int, int, int]], *options: str) -> Path:
    """Ends as `(how, rank, step, step that is kept)`, one after the other; then a start that reaches the end."""
    folder = done / "saes" / name
    for how, rank, step, kept in ends:
        ran = torchrun("train", done, how, rank, step, "--name", name, *options)
        assert ran.returncode != 0
        assert ("lost another rank" in ran.stderr) == (how == "killed")
        assert ("workbench: stopped; the same command" in ran.stderr) == (how == "interrupted")
        assert not folder.exists()
        stands = step_of(partial_path(folder))
        assert kept <= stands <= (kept if how == "killed" else 39)  # torchrun takes its time to hand Ctrl-C on
    assert torchrun("train", done, "never", 0, 0, "--name", name, *options).returncode == 0
    steps = [line["step"] for line in log_of(folder)]
    assert steps == sorted(set(steps))
    assert not (folder / "checkpoint").exists()
    return folder


@pytest.mark.slow
def test_a_rank_killed_in_a_step_leaves_the_step_before_and_the_run_resumes_bit_for_bit(done):
    folder = end_and_resume(done, "killed", [("killed", 1, 13, 13)])
    assert weights_apart(folder, done / "saes" / "two") == 0


@pytest.mark.slow
def test_so_it_does_whichever_rank_dies(done):
    """The rank that writes checkpoints, then the other; and Ctrl-C, which ends all after the step in hand."""
    ends = [("killed", 0, 7, 7), ("killed", 1, 13, 13), ("interrupted", 0, 21, 22)]
    folder = end_and_resume(done, "unlucky", ends)
    assert weights_apart(folder, done / "saes" / "two") == 0


@pytest.mark.slow
def test_latents_that_died_with_their_rank_go_back_to_the_last_checkpoint(done):
    ends = [("killed", 1, 27, 20), ("interrupted", 1, 31, 32)]
    folder = end_and_resume(done, "shared-killed", ends, "--share", "latents")
    assert weights_apart(folder, done / "saes" / "shared") == 0


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_others_when_their_time_is_up():
    ran = torchrun("hang", 3)
    assert ran.returncode != 0
    assert "LostRankError: rank 0 of 2 lost another rank (Timed out" in ran.stderr


def two_nodes(*arguments: object, restarts: int = 0) -> list[tuple[int, str]]:
    """Start one rank on each of two machines, both this one; return exit codes and what was said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
    command += ["--max-restarts", str(restarts), "--local-addr", "127.0.0.1", worker.__file__, *map(str, arguments)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    quiet["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # docs/howto/many-gpus.md
    started = [
        subprocess.Popen(command, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [node.communicate(timeout=500)[0] for node in started]
    return [(node.returncode, text) for node, text in zip(started, said, strict=True)]


@pytest.mark.slow
def test_two_machines_train_and_record_what_one_does(done, recorded):
    trained = two_nodes("train", done, "never", 0, 0, "--name", "nodes")
    assert [code for code, _ in trained] == [0, 0], trained
    assert weights_apart(done / "saes" / "nodes", done / "saes" / "two") == 0
    made = two_nodes("record", done, "never", 0, 0, "nodes")
    assert [code for code, _ in made] == [0, 0], made
    assert manifest_of_text(done, "nodes").files == recorded.files


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_machine_that_is_lost_comes_back_by_an_elastic_restart(done, lost):
    """`torchrun` starts both again; they go on from the step before the loss, to the same weights."""
    ended = two_nodes("train", done, "killed", lost, 13, "--name", f"back-{lost}", restarts=3)
    assert [code for code, _ in ended] == [0, 0], ended
    assert any("lost another rank" in text for _, text in ended)
    assert weights_apart(done / "saes" / f"back-{lost}", done / "saes" / "two") == 0


@pytest.mark.slow
def test_a_machine_that_stays_away_ends_the_other_and_both_resume(done):
    ended = two_nodes("train", done, "killed", 1, 13, "--name", "away")
    assert all(code != 0 for code, _ in ended)
    assert step_of(partial_path(done / "saes" / "away")) == 13
    assert [code for code, _ in two_nodes("train", done, "never", 0, 0, "--name", "away")] == [0, 0]
    assert weights_apart(done / "saes" / "away", done / "saes" / "two") == 0


def checkpoint(step: int) -> Checkpoint:
    state = TrainState.initial(torch.zeros(4), 8, generator=torch.Generator().manual_seed(step))
    state.step = step
    return Checkpoint(state, Position(0, step), 1.0)


def part(whole: Checkpoint, ranks: Ranks) -> Checkpoint:
    mine = ranks.share(8, "latents")
    held = {n: t[mine] if n.split(".")[0] in BY_LATENT else t for n, t in whole.state.tensors().items()}
    return Checkpoint(TrainState.from_tensors(held, whole.state.step), whole.position, whole.seconds)


def test_a_step_counts_when_all_its_parts_are_there(tmp_path):
    """A rank that dies while others write costs steps, never the run."""
    for ranks in TWO:
        write_checkpoint(tmp_path, part(checkpoint(10), ranks), Spread(latents=ranks))
    write_checkpoint(tmp_path, part(checkpoint(20), TWO[0]), Spread(latents=TWO[0]))
    assert step_of(tmp_path) == 10
    write_checkpoint(tmp_path, part(checkpoint(20), TWO[1]), Spread(latents=TWO[1]))
    assert step_of(tmp_path) == 20
    write_checkpoint(tmp_path, part(checkpoint(30), TWO[0]), Spread(latents=TWO[0]))
    names = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert names == {"00000020-0-of-2.safetensors", "00000020-1-of-2.safetensors", "00000030-0-of-2.safetensors"}


@pytest.mark.parametrize("n", [1, 2, 4])
def test_any_number_of_ranks_reads_what_two_have_written(tmp_path, n):
    whole = checkpoint(20)
    for ranks in TWO:
        write_checkpoint(tmp_path, part(whole, ranks), Spread(latents=ranks))
    for rank in range(n):
        ranks = Ranks(rank, n)
        found = read_checkpoint(tmp_path, Spread(latents=ranks))
        expected = part(whole, ranks).state.tensors()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state.tensors().items())


def test_the_state_of_a_rank_that_outlived_the_first_is_read_and_later_replaced(tmp_path):
    first, second = (Spread(tokens=ranks) for ranks in TWO)
    write_checkpoint(tmp_path, checkpoint(10), first)
    write_checkpoint(tmp_path, checkpoint(13), second)
    assert step_of(tmp_path) == 10  # together, the first alone writes
    write_checkpoint(tmp_path, checkpoint(13), second, alone=True)
    assert step_of(tmp_path) == 13
    write_checkpoint(tmp_path, checkpoint(20), first)
    assert {path.name for path in (tmp_path / "checkpoint").iterdir()} == {"state.safetensors"}
    assert step_of(tmp_path) == 20


def test_the_error_of_another_rank_is_one_of_ours():
    assert OtherRankError.exit_code == 2
