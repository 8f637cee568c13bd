"""What one of two ranks does in the tests; `torchrun` starts it. Answers go to files, which the tests compare.

    rank_worker.py whole FOLDER                      everything that needs no death: steps, exchanges, whole runs
    rank_worker.py train FOLDER END RANK STEP ...    the command line's `train ...`; RANK ends in the middle of STEP
    rank_worker.py record FOLDER END RANK SHARD NAME the command line's `record`; RANK ends in the middle of SHARD

    rank_worker.py hang SECONDS                      one rank stays away from an exchange that may take SECONDS

END: `killed` (kill -9 of the rank), `interrupted` (Ctrl-C in the terminal, which torchrun hands on to all), `never`.
"""

import itertools
import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import save_file

from interp.errors import WorkbenchError
from interp.ranks import Ranks, join
from saes.kernels._plain import PlainOps
from saes.kernels.autograd import AutogradSettings, AutogradStepper
from saes.kernels.compiled import CompiledOps
from saes.kernels.spread import UNSHARED, Spread, SpreadOps
from saes.kernels.state import BY_LATENT, Ops, RunState, TrainState
from saes.kernels.step import Derivatives, Stepper, StepSettings, block_norms
from saes.kinds.autograd import DictionarySizes
from saes.kinds.config import (
    BatchTopKConfig,
    CrosscoderConfig,
    CrossLayerConfig,
    GatedConfig,
    JumpReLUConfig,
    MatryoshkaConfig,
    ReLUConfig,
    SAEConfig,
    TopKConfig,
    TranscoderConfig,
)
from saes.kinds.registry import autograd_of, recipe_of

D_IN, D_OUT, D_SAE, N, K, STEPS = 20, 28, 64, 62, 5, 8
WIDTHS = (8, 12)
SETTINGS = StepSettings(variance=50.0, k_aux=4, aux_coefficient=0.5, dead_window=2 * N, clip_norm=0.05)
KINDS: dict[str, SAEConfig] = {
    "topk": TopKConfig(d_sae=D_SAE, k=K),
    "batchtopk": BatchTopKConfig(d_sae=D_SAE, k=K),
    "matryoshka": MatryoshkaConfig(d_sae=D_SAE, k=K, prefixes=(0.25, 0.5)),
    "jumprelu": JumpReLUConfig(d_sae=D_SAE, k=K),
    "jumprelu tanh": JumpReLUConfig(d_sae=D_SAE, k=K, sparsity="tanh"),
    "relu": ReLUConfig(d_sae=D_SAE),
    "gated": GatedConfig(d_sae=D_SAE),
    "transcoder": TranscoderConfig(d_sae=D_SAE, k=K, target="there", skip=True),
    "crosscoder": CrosscoderConfig(d_sae=D_SAE, k=K),
}
LEARNED: dict[str, SAEConfig] = {
    "across, jumprelu": CrossLayerConfig(d_sae=D_SAE, k=K, dead_coefficient=0.01, threshold=0.3),
    "across, batchtopk": CrossLayerConfig(d_sae=D_SAE, k=K, selection="batchtopk", skip=True),
}
"""Kinds that have a loss."""
RECORD = ["record", "small:attn-only-2l", "--hook-points", "blocks.0.hook_resid_post", "--tokens", "6000"]
RECORD += ["--context-length", "32", "--batch-size", "4", "--shard-contexts", "8"]
TRAIN = ["train", "planted", "--d-sae", "64", "--k", "3", "--tokens", "10240", "--batch-size", "256"]
TRAIN += ["--checkpoint-every", "10", "--log-every", "4"]
SWEEP = ["train", "planted", "--kind", "jumprelu", "--d-sae", "32", "64", "--k", "3", "--tokens", "5120"]
SWEEP += ["--batch-size", "256"]


def random_state(config: SAEConfig, seed: int = 0) -> TrainState:
    """Random weights in float64: no gradient is small by accident."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, spread: float = 0.2) -> torch.Tensor:
        return spread * torch.randn(*shape, generator=generator, dtype=torch.float64)

    transcodes = isinstance(config, TranscoderConfig)
    b_dec = draw(D_OUT if transcodes else D_IN, spread=1.0)
    state = TrainState.initial(b_dec, D_SAE, generator=generator, d_in=D_IN if transcodes else None)
    state.b_enc, state.W_enc = draw(D_SAE), state.W_enc + draw(*state.W_enc.shape)
    if isinstance(config, CrosscoderConfig):
        state.W_dec /= block_norms(state.W_dec, WIDTHS).sum(1, keepdim=True)
    if isinstance(config, JumpReLUConfig):
        state.extra = {"threshold": 0.5 + draw(D_SAE).abs()}
    if isinstance(config, GatedConfig):
        state.extra = {"r_mag": draw(D_SAE), "b_mag": draw(D_SAE)}
    if isinstance(config, TranscoderConfig) and config.skip:
        state.extra = {"W_skip": draw(D_OUT, D_IN)}
    state.zero_moments()
    return state


def make_state(config: SAEConfig) -> TrainState:
    """A random state in which a few latents start dead, more than take part in AuxK."""
    state = random_state(config, 3)
    state.silent[::3] = torch.arange(len(state.silent[::3])) % 5 + 3 * N
    return state


def batch(config: SAEConfig, step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rows of very unequal size, the large ones first: what one rank alone would select is not what both do."""
    generator = torch.Generator().manual_seed(100 + step)
    size = torch.linspace(3, 0.3, N, dtype=torch.float64)[:, None]
    x = torch.randn(N, D_IN, generator=generator, dtype=torch.float64) * size
    y = torch.randn(N, D_OUT, generator=generator, dtype=torch.float64) * size
    return x, y if isinstance(config, TranscoderConfig) else None


def take_steps(config: SAEConfig, ops: Ops, spread: Spread = UNSHARED, make=Stepper) -> tuple[TrainState, list]:
    """The state after `STEPS` steps and what each step saw, of this rank's tokens or latents."""
    state, rows = make_state(config), spread.tokens.share(N, "rows")
    mine = spread.latents.share(D_SAE, "latents")
    held = {name: t[mine].clone() if name.split(".")[0] in BY_LATENT else t for name, t in state.tensors().items()}
    state = TrainState.from_tensors(held, 0)
    stepper, seen = make(SETTINGS, recipe_of(config, WIDTHS), ops, spread), []
    for step in range(STEPS):
        x, y = batch(config, step)
        seen.append(stepper.step(state, x[rows], 1e-2, None if y is None else y[rows]))
    return state, seen


def learn(config: SAEConfig, ops: Ops, spread: Spread = UNSHARED) -> tuple[RunState, list]:
    """The same of a kind that has a loss: two layers of a cross-layer transcoder."""
    recipe, layers = autograd_of(config), isinstance(config, CrossLayerConfig)
    sizes = DictionarySizes(D_IN, D_SAE, torch.zeros(2, D_OUT) if layers else torch.zeros(D_IN))
    state = recipe.start(sizes, seed=3)
    state.silent[..., ::3] = 3 * N
    state.extra = {name: tensor.double() for name, tensor in state.extra.items()}
    state.zero_moments()
    variance = (50.0, 40.0) if layers else 50.0
    settings = AutogradSettings(variance=variance, n_steps=STEPS, dead_window=2 * N, clip_norm=0.05)
    stepper, seen = AutogradStepper(settings, recipe.build(sizes, seed=3).double(), ops, spread), []
    rows = spread.tokens.share(N, "rows")
    for step in range(STEPS):
        (x, y), (other, also) = (batch(TranscoderConfig(target="there"), 2 * step + layer) for layer in range(2))
        x, y = (torch.stack([x, other], 1), torch.stack([y, also], 1)) if layers else (x, None)
        seen.append(stepper.step(state, x[rows], 1e-2, None if y is None else y[rows]))
    return state, seen


class Selfish(Stepper):
    """Null: every rank selects among its own tokens."""

    def __init__(self, settings: StepSettings, rule, ops: Ops, spread: Spread):
        super().__init__(settings, rule, ops, spread)
        self.ops.select_batch = ops.select_batch  # type: ignore[method-assign]


def save_steps(folder: Path, name: str, run: tuple[RunState, list], spread: Spread) -> None:
    state, seen = run
    latents = spread.latents
    flat = {n: latents.collect(t) if n.split(".")[0] in BY_LATENT else t for n, t in state.tensors().items()}
    if spread.ranks.first:
        save_file({n: t.contiguous() for n, t in flat.items()}, folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(json.dumps([result._asdict() for result in seen]))


def steps(folder: Path, ranks: Ranks) -> None:
    """First steps of every kind, tokens shared; of the kinds that can, latents shared."""
    shared = Spread(tokens=ranks)
    for name, config in KINDS.items():
        save_steps(folder, f"tokens {name}", take_steps(config, CompiledOps(), shared), shared)
    for name, config in LEARNED.items():
        save_steps(folder, f"tokens {name}", learn(config, CompiledOps(), shared), shared)
    save_steps(folder, "tokens plain", take_steps(KINDS["batchtopk"], PlainOps(), shared), shared)
    save_steps(folder, "tokens selfish", take_steps(KINDS["batchtopk"], CompiledOps(), shared, Selfish), shared)
    sharded = Spread(latents=ranks)
    for name in ("topk", "batchtopk"):
        save_steps(folder, f"latents {name}", take_steps(KINDS[name], CompiledOps(), sharded), sharded)
    save_steps(folder, "latents plain", take_steps(KINDS["topk"], PlainOps(), sharded), sharded)


LIVE = ["train", "live", "--d-sae", "64", "--k", "3", "--tokens", "5120", "--batch-size", "256"]


def live_steps(folder: Path, spread: Spread = UNSHARED) -> tuple[TrainState, list, torch.Tensor, int]:
    """Steps in float64 on a live recording, as `take_steps`; the rows as read, and how many contexts the model ran."""
    from interp.recording import record
    from interp.recording.live import LiveRecording
    from saes.training.data import RowSource, training_batches

    recording, ran, honest = LiveRecording(folder / "recordings" / "live"), [], record.compute_activations
    record.compute_activations = lambda capture, text, **how: (
        ran.append(len(text.tokens))
        or honest(  # type: ignore[assignment]
            capture, text, **how
        )
    )
    source = RowSource(recording, recording.hook_points[0])
    state = TrainState.initial(torch.zeros(source.d_in), D_SAE, generator=torch.Generator().manual_seed(1))
    mine = spread.latents.share(D_SAE, "latents")
    tensors = {name: t.double() if t.is_floating_point() else t for name, t in state.tensors().items()}
    held = {name: t[mine].clone() if name.split(".")[0] in BY_LATENT else t for name, t in tensors.items()}
    state, rows, seen = TrainState.from_tensors(held, 0), [], []
    stepper = Stepper(SETTINGS, recipe_of(KINDS["batchtopk"], WIDTHS), CompiledOps(), spread)
    part = spread.tokens.share(256, "rows")
    batches = training_batches([source], batch_size=256, heldout_fraction=0.1, seed=3, part=part, ranks=spread.ranks)
    for (batch,) in itertools.islice(batches, 30):  # more than an epoch
        rows.append(batch.x)
        # the text repeats itself: of equal values at the cut, one process in float64 takes any
        apart = 1e-3 * torch.sin(batch.rows.double()[:, None] * torch.arange(1, source.d_in + 1))
        seen.append(stepper.step(state, source.scales.scaled(batch.x.double()) + apart, 3e-3))
    record.compute_activations = honest
    return state, seen, torch.cat(rows), sum(ran)


def live(folder: Path, ranks: Ranks) -> dict:
    """A recording without activations: its steps and rows, with tokens or latents shared; a pass that fails."""
    from interp.recording.live import LiveRecording

    assert command(folder, *RECORD, "--corpus", str(folder / "text.jsonl"), "--live", "--name", "live") == 0
    ranks.wait()
    heard: dict = {}
    for name, spread in (("tokens", Spread(tokens=ranks)), ("latents", Spread(latents=ranks))):
        state, seen, rows, heard[f"{name} ran"] = live_steps(folder, spread)
        save_steps(folder, f"{name} live", (state, seen), spread)
        save_file({"rows": rows}, folder / f"{name} live {ranks.rank}.safetensors")
        assert command(folder, *LIVE, "--share", name, "--name", f"live-{name}") == 0
    honest = LiveRecording._compute
    if ranks.rank == 1:
        LiveRecording._compute = fails  # type: ignore[method-assign]
    heard["failed"] = command(folder, *LIVE, "--name", "live-failed")
    LiveRecording._compute = honest
    return heard


def fails(*_: object) -> dict:
    raise WorkbenchError("a pass of the model failed here")


def tied_values() -> torch.Tensor:
    """`[24, 16]` float32 of only 12 different values: every cut goes through equal ones."""
    return torch.randint(-6, 6, (24, 16), generator=torch.Generator().manual_seed(5)).float()


def selections(folder: Path, ranks: Ranks) -> None:
    """What is selected of values with many ties, as a dense array of all ranks."""
    pre, found = tied_values(), {}
    for shared in ("tokens", "latents"):
        spread = Spread(**{shared: ranks})
        ops = SpreadOps(CompiledOps(), spread)
        mine = pre[spread.tokens.share(len(pre), "rows"), spread.latents.share(pre.shape[1], "latents")].contiguous()
        for k in (1, 3, 7, 40):
            active = ops.select_batch(mine, k * len(mine))
            found[f"{shared} batch {k}"] = dense(active, mine)
            if k < pre.shape[1]:
                found[f"{shared} row {k}"] = dense(ops.select_topk(mine, k), mine)
    gathered = {}
    for name, part in found.items():
        axis = 0 if name.startswith("tokens") else 1
        gathered[name] = torch.cat(ranks.gather(part), axis).contiguous()
    if ranks.first:
        save_file(gathered, folder / "selections.safetensors")


def dense(active, like: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(like)
    rows = torch.repeat_interleave(active.starts.diff())
    keep = active.values > 0
    out[rows[keep], active.latents[keep]] = active.values[keep]
    return out


def exchanges(ranks: Ranks) -> dict:
    """What each rank hears when one, the other, or both fail, and simple sums."""
    heard: dict = {"total": ranks.total(ranks.rank + 0.5), "least": ranks.least(-ranks.rank)}
    heard["collected"] = ranks.collect(torch.full((2, 3), float(ranks.rank))).tolist()
    for name, failing in (("none", ()), ("second", (1,)), ("both", (0, 1))):
        try:
            with ranks.checked(), ranks.checked():
                if ranks.rank in failing:
                    raise WorkbenchError(f"the reason of rank {ranks.rank}")
            heard[name] = "well"
        except WorkbenchError as error:
            heard[name] = f"{type(error).__name__}: {error}"
    return heard


def bad_number(folder: Path, ranks: Ranks) -> str:
    """Training on a recording with a NaN among the rows of one rank only."""
    from interp.recording.store import Recording
    from saes.training.config import TrainConfig
    from saes.training.train import train_sae

    recording = Recording(folder / "recordings" / "damaged")
    short = TrainConfig(tokens=10_240, batch_size=256)
    try:
        hook_point = recording.hook_points[0]
        train_sae(recording, hook_point, KINDS["topk"], short, folder / "nan", spread=Spread(tokens=ranks))
    except WorkbenchError as error:
        return f"{type(error).__name__}: {error}"
    return "well"


def left_behind(folder: Path, ranks: Ranks) -> None:
    """A run of shared latents that every rank leaves after the same step; it is resumed here, and by one process."""
    from interp.recording.store import Recording
    from saes.training.config import TrainConfig
    from saes.training.train import train, train_sae

    recording = Recording(folder / "recordings" / "planted")
    config, spread = BatchTopKConfig(d_sae=64, k=3), Spread(latents=ranks)
    short = TrainConfig(tokens=10_240, batch_size=256, checkpoint_every=10, log_every=4)
    for name in ("left", "resumed"):
        run = train(recording, recording.hook_points[0], config, short, folder / "saes" / name, spread=spread)
        for _ in itertools.islice(run, 5):
            pass
        run.close()  # type: ignore[attr-defined]
    train_sae(recording, recording.hook_points[0], config, short, folder / "saes" / "resumed", spread=spread)


def told_between_steps(folder: Path, ranks: Ranks) -> str:
    """A run of shared latents of which one rank hears Ctrl-C while its caller looks at a health line; then resumed."""
    from interp.recording.store import Recording
    from saes.training.config import TrainConfig
    from saes.training.train import train, train_sae

    recording = Recording(folder / "recordings" / "planted")
    short = TrainConfig(tokens=10_240, batch_size=256, checkpoint_every=10, log_every=4)
    what = (recording, recording.hook_points[0], BatchTopKConfig(d_sae=64, k=3), short, folder / "saes" / "told")
    said = "well"
    try:
        for metrics in train(*what, spread=Spread(latents=ranks)):
            if metrics.step == 16 and ranks.rank == 1:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.5)
    except (KeyboardInterrupt, WorkbenchError) as error:
        said = f"{type(error).__name__}: {error}"
    train_sae(*what, spread=Spread(latents=ranks))
    return said


def command(folder: Path, *arguments: str) -> int:
    from workbench.__main__ import main

    try:
        return main([*arguments, "--workspace", str(folder), "--threads", "1"])
    except SystemExit as error:
        return int(error.code or 0)


def whole(folder: Path) -> None:
    with join() as ranks:
        heard = exchanges(ranks)
        steps(folder, ranks)
        selections(folder, ranks)
        assert command(folder, *TRAIN, "--name", "two") == 0
        assert command(folder, *TRAIN, "--name", "shared", "--share", "latents") == 0
        assert command(folder, *SWEEP, "--name", "sweep-two") == 0
        left_behind(folder, ranks)
        heard["told between steps"] = told_between_steps(folder, ranks)
        assert command(folder, *RECORD, "--corpus", str(folder / "text.jsonl"), "--name", "two") == 0
        heard["stopped"] = record_until(folder, "stopped", "stops", 1, 9)
        heard["live"] = live(folder, ranks)
        heard["nan"] = bad_number(folder, ranks)
        heard["no such kind"] = command(folder, *TRAIN, "--name", "x", "--kind", "matryoshka", "--share", "latents")
        heard["threads"] = exchange_threads()
    heard["threads left"] = exchange_threads()
    (folder / f"heard-{ranks.rank}.json").write_text(json.dumps(heard))


def exchange_threads() -> list[str]:
    """The names of the threads that exchange numbers between ranks; none is known where there is no /proc."""
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def end(how: str) -> None:
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":  # a rank that `torchrun` started again lives on
        return
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "interrupted":
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(2)  # torchrun hands it on
    elif how == "stops":
        raise KeyboardInterrupt


def train_until(folder: Path, how: str, rank: int, step: int, options: list[str]) -> int:
    gradients = Stepper.gradients

    def fatal(self: Stepper, state: TrainState, *batch: torch.Tensor | None) -> Derivatives:
        if state.step == step and self.spread.ranks.rank == rank:
            end(how)
        return gradients(self, state, *batch)

    Stepper.gradients = fatal  # type: ignore[method-assign]
    return command(folder, *TRAIN, *options)


def record_until(folder: Path, name: str, how: str, rank: int, shard: int) -> int:
    """Record; RANK ends when it has computed its first shard from number SHARD on, before it is written."""
    from interp.recording.writer import ShardWriter

    put = ShardWriter.put

    def fatal(self: ShardWriter, computed) -> None:
        if computed.text.number >= shard and int(os.environ["RANK"]) == rank:
            end(how)
        put(self, computed)

    ShardWriter.put = fatal  # type: ignore[method-assign]
    try:
        return command(folder, *RECORD, "--corpus", str(folder / "text.jsonl"), "--name", name)
    finally:
        ShardWriter.put = put  # type: ignore[method-assign]


def hang(seconds: float) -> None:
    with join(timeout=timedelta(seconds=seconds)) as ranks:
        if ranks.first:
            ranks.total(1.0)
        time.sleep(10 * seconds)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "hang":
        hang(float(sys.argv[2]))
        sys.exit()
    what, place = sys.argv[1], Path(sys.argv[2])
    if what == "whole":
        whole(place)
        sys.exit()
    ending, at = sys.argv[3], (int(sys.argv[4]), int(sys.argv[5]))
    if what == "train":
        sys.exit(train_until(place, ending, *at, sys.argv[6:]))
    sys.exit(record_until(place, (sys.argv[6:] or ["killed"])[0], ending, *at))
