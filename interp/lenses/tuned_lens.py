"""The tuned lens: a logit lens that first learned each layer's language (Belrose et al. 2023).

Each layer gets an affine translator, added to the residual before the model's own final norm and unembedding:

    reading = unembed(norm_final(resid + resid @ weight + bias))

At weight 0 and bias 0 it is the plain logit lens. `interp.lenses.tuned_lens` fits it by distillation: the loss is
`KL(model's output || reading)`, nothing is learned from the text itself. A lens belongs to one set of weights.

    lens = TunedLens.load(workspace.path("lens", "smollm2-135m"), model)
    readings = logit_lens(model, tokens, lens=lens)

Training a tuned lens: distil the model's output into one affine translator per layer.

    for step in train_tuned_lens(model, contexts, heldout, folder, config=TunedLensConfig(steps=250)):
        print(step.step, step.loss)

1. Run a few contexts, keep the residual after every layer at a few random positions (the first of a context is left
   out: its residual is an outlier), and the model's own log-probabilities there.
2. Layer by layer: `KL(model || reading)`, its gradient in that layer's translator alone, one step of Adam. Logits of
   one layer at `positions` positions exist at a time, so a vocabulary of 50,000 costs what it must and no more.
3. At the end each translator is kept only where it beats the plain logit lens on contexts set apart from training, and
   both are measured once on `heldout`.

Belrose et al. 2023 train with SGD and Nesterov momentum on 2^18 tokens a step; Adam gets along with far fewer tokens.
The bias is learned in units of its layer's typical residual, so that one learning rate suits all layers.
Interrupted, a run keeps its last whole step, and the same call resumes it to the same numbers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from interp.artifacts import Draft, atomic_file, read_manifest
from interp.errors import ConfigError, CorruptError, MismatchError, NonFiniteError
from interp.lenses.config import TunedLensConfig
from interp.models.adapter import final_norm_and_unembed, weight_hash
from interp.models.capture import Capture
from interp.names import lens_hook_points
from interp.results import Record, Result
from interp.runtime import make_generator

FILE = "lens.safetensors"


@dataclass(frozen=True, eq=False)
class TunedLens(Result):
    """Translators by hook point; a hook point without one is read as it is."""

    weights: Mapping[str, Tensor]
    """hook point -> `[d_model, d_model]`, so that `resid @ weight` is added"""
    biases: Mapping[str, Tensor]
    """hook point -> `[d_model]`"""
    weight_hash: str
    """of the model that it was trained on"""
    summary: dict[str, Any] = field(default_factory=dict)
    """KL per hook point on held-out tokens, as in the manifest"""

    def translate(self, hook_point: str, resid: Tensor) -> Tensor:
        """`resid [..., d_model]` in the language of the last layer."""
        if hook_point not in self.weights:
            return resid
        weight, bias = (table[hook_point].to(resid.device) for table in (self.weights, self.biases))
        moved = resid.to(weight.dtype)
        return (moved + moved @ weight + bias).to(resid.dtype)

    def check_model(self, model: Any) -> None:
        """Raises `MismatchError` when the model has other weights than the lens was trained on."""
        if weight_hash(model) != self.weight_hash:
            raise MismatchError(
                f"the lens was trained on weights {self.weight_hash[:12]}, this model has {weight_hash(model)[:12]}; "
                "load the model that it belongs to, or train a lens for this one: `workbench lens MODEL`"
            )

    def to_records(self) -> list[Record]:
        """Return one row per hook point: `hook_point, kl_logit, kl_tuned` (nats; None: not measured)."""
        measured = self.summary.get("kl", {})
        return [
            {"hook_point": name} | {key: measured.get(name, {}).get(key) for key in ("kl_logit", "kl_tuned")}
            for name in self.weights
        ]

    def headline(self) -> str:
        """Count the translators."""
        return f"Tuned lens of {len(self.weights)} translators; KL from the model's output in nats"

    def save(self, folder: Path) -> None:
        """Write the translators into a folder."""
        from safetensors.torch import save_file

        tensors = {f"{name}.weight": value.contiguous() for name, value in self.weights.items()}
        tensors |= {f"{name}.bias": value.contiguous() for name, value in self.biases.items()}
        with atomic_file(Path(folder) / FILE) as temporary:
            save_file(tensors, temporary)

    @classmethod
    def load(cls, folder: Path | str, model: Any = None) -> "TunedLens":
        """The lens in an artefact folder; with a `model`, refused unless it was trained on these weights.

        Raises `MissingError`, `CorruptError`, or `MismatchError` for other weights or an artefact of another kind.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        manifest = read_manifest(Path(folder))
        if manifest.kind != "lens":
            raise MismatchError(f"{folder} is a {manifest.kind}, not a lens")
        try:
            tensors = load_file(Path(folder) / FILE)
        except (OSError, SafetensorError) as error:
            raise CorruptError(f"{Path(folder) / FILE} cannot be read: {error}") from error
        names = sorted({key.rpartition(".")[0] for key in tensors})
        weights = {name: tensors.get(f"{name}.weight", torch.empty(0)) for name in names}
        biases = {name: tensors.get(f"{name}.bias", torch.empty(0)) for name in names}
        if any(not b.numel() or weights[name].shape != (len(b), len(b)) for name, b in biases.items()):
            raise CorruptError(f"{Path(folder) / FILE} does not hold a square weight and a bias per hook point")
        lens = cls(weights, biases, manifest.config["weight_hash"], manifest.summary)
        if model is not None:
            lens.check_model(model)
        return lens


def kl_divergence(target: Tensor, logits: Tensor) -> Tensor:
    """`[...]` nats: `KL(target || reading)` of log-probabilities `target [..., d_vocab]` and a reading's `logits`.

    0 when they are the same distribution; how surprised the reading would be by the target, on average.
    """
    return (target.exp() * (target - logits.log_softmax(-1))).sum(-1)


def identity_lens(hook_points: list[str], d_model: int, weight_hash: str) -> TunedLens:
    """Where training starts: translators that change nothing."""
    weights = {name: torch.zeros(d_model, d_model) for name in hook_points}
    return TunedLens(weights, {name: torch.zeros(d_model) for name in hook_points}, weight_hash)


CHECKPOINT = "checkpoint.safetensors"


class LensStep(NamedTuple):
    """One step of training."""

    step: int
    total: int
    loss: float
    """KL in nats, mean over layers and this step's tokens"""


def train_tuned_lens(
    model: Any,
    contexts: Tensor,
    heldout: Tensor,
    folder: Path,
    *,
    config: TunedLensConfig | None = None,
    model_name: str,
    source: str,
    overwrite: bool = False,
) -> Iterator[LensStep]:
    """Train into `folder` (a `lenses/<name>`), yielding every step; the folder is whole when it ends.

    `contexts [n, pos]` and `heldout [m, pos]` are tokens; `source` says where they come from. The manifest's summary
    has per hook point `kl_logit` and `kl_tuned` on `heldout`, and `kept` (whether the translator beat the plain lens).

    Raises `ConfigError` for too few contexts, `NonFiniteError` when the loss is not finite, `MismatchError` when an
    unfinished run with other settings is in the way.
    """
    run = _Run(model, contexts, heldout, Path(folder), config or TunedLensConfig(), model_name, source, overwrite)
    try:
        while run.done < run.config.steps:
            loss = run.step()
            if run.done % run.config.checkpoint_every == 0:
                run.checkpoint(loss)
            yield LensStep(run.done, run.config.steps, loss)
    except NonFiniteError:
        raise
    except BaseException:  # Ctrl-C and a closed generator too
        run.checkpoint(None)
        raise
    run.finish()


class _Sample(NamedTuple):
    """Residuals at drawn positions, and what the model says there."""

    resid: dict[str, Tensor]
    """hook point -> `[n, d_model]`"""
    target: Tensor
    """`[n, d_vocab]` log-probabilities, float32"""


class _Run:
    """One training run: opened or resumed, advanced step by step, finished."""

    def __init__(
        self,
        model: Any,
        contexts: Tensor,
        heldout: Tensor,
        folder: Path,
        config: TunedLensConfig,
        model_name: str,
        source: str,
        overwrite: bool,
    ):
        if len(contexts) < 10 or len(heldout) < 1 or contexts.shape[1] < 2:
            raise ConfigError(
                f"at least 10 contexts to train on and 1 held out were expected, of 2 tokens or more, got "
                f"{list(contexts.shape)} and {list(heldout.shape)}; use more text"
            )
        self.model, self.config, self.heldout = model, config, heldout
        n_decide = max(1, len(contexts) // 10)
        self.contexts, self.deciding = contexts[:-n_decide], contexts[-n_decide:]
        self.names, self.last = config.hook_points(model.cfg.n_layers), lens_hook_points(model.cfg.n_layers)[-1]
        settings = {
            "model": model_name,
            "weight_hash": weight_hash(model),
            "hook_points": self.names,
            "source": source,
            "n_contexts": len(contexts),
            "context_length": contexts.shape[1],
            **asdict(config),
        }
        self.draft = Draft.open(folder, kind="lens", config=settings, seed=config.seed, overwrite=overwrite)
        start = identity_lens(self.names, model.cfg.d_model, settings["weight_hash"])
        device = model.cfg.device
        values = {f"{n}.weight": w for n, w in start.weights.items()} | {
            f"{n}.bias": b for n, b in start.biases.items()
        }
        self.values = {key: value.to(device).requires_grad_() for key, value in values.items()}
        """`<hook point>.weight` and `.bias`"""
        self.optimizer = torch.optim.Adam(self.values.values())
        self.done = 0
        """steps taken"""
        self.whole = True
        """False while a step is half taken: what an interrupt leaves then is not kept"""
        self._resume()
        self.units = {n: float(r.float().pow(2).mean().sqrt()) for n, r in self.sample(self.contexts, 0).resid.items()}

    def step(self) -> float:
        """One step for every layer; the mean loss."""
        sample, losses = self.sample(self.contexts, self.done + 1), []
        for name in self.names:
            weight, bias = self.translator(name)
            with torch.enable_grad():
                loss = kl_divergence(sample.target, self.read(name, sample.resid[name], weight, bias)).mean()
            weight.grad, bias.grad = torch.autograd.grad(loss, (weight, bias))
            losses.append(float(loss.detach()))
        mean = sum(losses) / len(losses)
        if mean != mean or mean == float("inf"):
            raise NonFiniteError(f"the loss is not finite at step {self.done + 1}; lower lr (now {self.config.lr:g})")
        rise = min(1.0, (self.done + 1) / max(1, self.config.warmup))
        self.optimizer.param_groups[0]["lr"] = self.config.lr * rise * (1 - self.done / self.config.steps)
        self.whole = False
        self.optimizer.step()
        self.done += 1
        self.whole = True
        return mean

    def translator(self, name: str) -> tuple[Tensor, Tensor]:
        """Weight and bias of one hook point."""
        return self.values[f"{name}.weight"], self.values[f"{name}.bias"]

    def read(self, name: str, resid: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Logits of `resid [n, d_model]` through a translator whose bias is in units of the layer."""
        moved = resid.float()
        moved = moved + moved @ weight + bias * self.units[name]
        return final_norm_and_unembed(self.model, moved.to(resid.dtype)).float()

    @torch.no_grad()
    def sample(self, contexts: Tensor, draw: int | str, n: int | None = None) -> _Sample:
        """The `draw`-th sample of positions; the same for the same seed whenever it is drawn."""
        n = n or self.config.positions
        generator = make_generator(self.config.seed, "tuned lens", draw)
        rows = torch.randint(len(contexts), (min(self.config.contexts, n),), generator=generator)
        row = torch.randint(len(rows), (n,), generator=generator)
        position = torch.randint(1, contexts.shape[1], (n,), generator=generator)
        names = list(dict.fromkeys([*self.names, self.last]))
        with Capture(self.model, names) as capture:
            values = capture(contexts[rows].to(self.model.cfg.device))
        values = {name: value[row, position] for name, value in values.items()}
        return _Sample(values, final_norm_and_unembed(self.model, values[self.last]).float().log_softmax(-1))

    @torch.no_grad()
    def measure(self, contexts: Tensor, what: str) -> dict[str, tuple[float, float]]:
        """Mean KL per hook point, `(plain logit lens, tuned)`, on fresh tokens."""
        n = self.config.heldout_positions
        sizes = [min(self.config.positions, n - done) for done in range(0, n, self.config.positions)]
        sums = {name: [0.0, 0.0] for name in self.names}
        for i, size in enumerate(sizes):
            sample = self.sample(contexts, f"{what} {i}", size)
            for name in self.names:
                weight, bias = self.translator(name)
                for j, factor in enumerate((0, 1)):
                    logits = self.read(name, sample.resid[name], factor * weight, factor * bias)
                    sums[name][j] += float(kl_divergence(sample.target, logits).sum()) / n
        return {name: (plain, tuned) for name, (plain, tuned) in sums.items()}

    def checkpoint(self, loss: float | None) -> None:
        """Write everything that the rest of the run depends on; within a step the checkpoint before it stays."""
        from safetensors.torch import save_file

        if not self.whole:
            return
        tensors = {key: value.detach().contiguous() for key, value in self.values.items()}
        for key, value in self.values.items():
            moments = self.optimizer.state.get(value, {})
            for name, moment in (("first", "exp_avg"), ("second", "exp_avg_sq")):
                tensors[f"{key}.{name}"] = moments.get(moment, torch.zeros_like(value))
        with atomic_file(self.draft.path / CHECKPOINT) as temporary:
            save_file(tensors, temporary, metadata={"step": str(self.done)})
        self.draft.update(step=self.done, steps=self.config.steps, loss=loss)

    def finish(self) -> None:
        """Keep the translators that help, measure, and put the folder in place."""
        kept = {name: tuned < plain for name, (plain, tuned) in self.measure(self.deciding, "decide").items()}
        with torch.no_grad():
            for key, value in self.values.items():
                value.mul_(kept[key.rpartition(".")[0]])
        measured = self.measure(self.heldout, "heldout")
        summary = {
            "n_heldout": self.config.heldout_positions,
            "kl": {n: {"kl_logit": a, "kl_tuned": b, "kept": kept[n]} for n, (a, b) in measured.items()},
        }
        config = self.draft.config
        weights = {name: self.translator(name)[0].detach().cpu() for name in self.names}
        biases = {name: (self.translator(name)[1].detach() * self.units[name]).cpu() for name in self.names}
        TunedLens(weights, biases, config["weight_hash"]).save(self.draft.path)
        (self.draft.path / CHECKPOINT).unlink(missing_ok=True)
        self.draft.finish(summary=summary, parents={f"model:{config['model']}": config["weight_hash"]})

    def _resume(self) -> None:
        """Take up the checkpoint, where there is one."""
        from safetensors import safe_open

        path = self.draft.path / CHECKPOINT
        if not path.exists():
            return
        with safe_open(path, "pt", device=str(self.model.cfg.device)) as file, torch.no_grad():
            self.done = int(file.metadata()["step"])
            for key, value in self.values.items():
                value.copy_(file.get_tensor(key))
                first, second = (file.get_tensor(f"{key}.{moment}") for moment in ("first", "second"))
                step = torch.tensor(float(self.done))
                self.optimizer.state[value] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
