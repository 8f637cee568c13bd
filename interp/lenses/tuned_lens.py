"""The tuned lens: a logit lens with a learned affine translator per layer (Belrose et al. 2023).

The translator is applied to the residual before the model's own final norm and unembedding:

    reading = unembed(norm_final(resid + resid @ weight + bias))

With weight 0 and bias 0 it is the plain logit lens. Translators are trained by distillation: the loss is
`KL(model's output || reading)`, and the text itself is no target. A lens is valid for one set of weights.

    for step in train_tuned_lens(model, contexts, heldout, folder, config=TunedLensConfig(steps=250)):
        print(step.step, step.loss)
    lens = TunedLens.load(workspace.path("lens", "smollm2-135m"), model)
    readings = logit_lens(model, tokens, lens=lens)

Training:

1. Run a few contexts. Take the residual after every layer, and the model's own log-probabilities, at a few random
   positions. The first position of a context is never drawn: its residual is an outlier.
2. For each layer, compute `KL(model || reading)` and its gradient in that layer's translator, and take one step of
   Adam. The logits of one layer at `positions` positions are in memory at a time.
3. At the end, set a translator to zero unless it beats the plain logit lens on contexts held out for this choice.
   Both lenses are then measured once on `heldout`.

Belrose et al. 2023 train with SGD and Nesterov momentum on 2^18 tokens a step; Adam needs far fewer tokens. The bias is
learned in units of its layer's root mean square residual, so that one learning rate suits all layers. An interrupted
run retains its last whole step; the same call resumes it, and gives the same numbers as a run without interruption.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.artifacts import Draft, atomic_file, read_manifest
from interp.errors import ConfigError, CorruptError, MismatchError, NonFiniteError
from interp.lenses.config import TunedLensConfig
from interp.models.adapter import final_norm_and_unembed, weight_hash
from interp.models.hooked import HookedModel
from interp.models.passes import Capture
from interp.names import lens_hook_points
from interp.remote import as_path
from interp.results import Record, Result
from interp.runtime import make_generator

FILE = "lens.safetensors"


@dataclass(frozen=True, eq=False)
class TunedLens(Result):
    """Translators by hook point; without one, a hook point is read by the plain logit lens."""

    weights: Mapping[str, Float[Tensor, "d_model d_model"]]
    """hook point -> `[d_model, d_model]`, so that `resid @ weight` is added"""
    biases: Mapping[str, Float[Tensor, " d_model"]]
    """hook point -> `[d_model]`"""
    weight_hash: str
    """weight hash of the model that it was trained on"""
    summary: dict[str, Any] = field(default_factory=dict)
    """KL per hook point on held-out tokens, as in the manifest"""

    def translate(self, hook_point: str, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Return `resid [..., d_model]` translated to the basis of the last layer."""
        if hook_point not in self.weights:
            return resid
        weight, bias = (table[hook_point].to(resid.device) for table in (self.weights, self.biases))
        cast = resid.to(weight.dtype)
        return (cast + cast @ weight + bias).to(resid.dtype)

    def check_model(self, model: HookedModel) -> None:
        """Raise `MismatchError` when the model has other weights than the lens was trained on."""
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
        """Return one line: the number of translators."""
        return f"Tuned lens of {len(self.weights)} translators; KL from the model's output in nats"

    def save(self, folder: Path) -> None:
        """Write the translators into a folder."""
        from safetensors.torch import save_file

        tensors = {f"{name}.weight": value.contiguous() for name, value in self.weights.items()}
        tensors |= {f"{name}.bias": value.contiguous() for name, value in self.biases.items()}
        with atomic_file(as_path(folder) / FILE) as temporary:
            save_file(tensors, temporary)

    @classmethod
    def load(cls, folder: Path | str, model: HookedModel | None = None) -> "TunedLens":
        """Read the lens of an artefact folder, and check it against `model` where one is given.

        Raises `MissingError`, `CorruptError`, or `MismatchError` for an artefact of another kind, or for a model with
        other weights than the lens was trained on.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        manifest = read_manifest(as_path(folder))
        if manifest.kind != "lens":
            raise MismatchError(f"{folder} is a {manifest.kind}, not a lens")
        try:
            tensors = load_file(as_path(folder) / FILE)
        except (OSError, SafetensorError) as error:
            raise CorruptError(f"{as_path(folder) / FILE} cannot be read: {error}") from error
        names = sorted({key.rpartition(".")[0] for key in tensors})
        weights = {name: tensors.get(f"{name}.weight", torch.empty(0)) for name in names}
        biases = {name: tensors.get(f"{name}.bias", torch.empty(0)) for name in names}
        if any(not b.numel() or weights[name].shape != (len(b), len(b)) for name, b in biases.items()):
            raise CorruptError(f"{as_path(folder) / FILE} does not hold a square weight and a bias per hook point")
        lens = cls(weights, biases, manifest.config["weight_hash"], manifest.summary)
        if model is not None:
            lens.check_model(model)
        return lens


def kl_divergence(
    target: Float[Tensor, "*batch d_vocab"], logits: Float[Tensor, "*batch d_vocab"]
) -> Float[Tensor, "*batch"]:
    """Return `KL(target || reading)` in nats, `[...]`, of log-probabilities `target` and a reading's `logits`.

    Both are `[..., d_vocab]`. 0 means the same distribution; above 0, the expected excess surprise of the reading on
    tokens drawn from the target.
    """
    return (target.exp() * (target - logits.log_softmax(-1))).sum(-1)


def identity_lens(hook_points: list[str], d_model: int, weight_hash: str) -> TunedLens:
    """Return translators of weight 0 and bias 0, at which training starts."""
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
    model: HookedModel,
    contexts: Int[Tensor, "n pos"],
    heldout: Int[Tensor, "m heldout_pos"],
    folder: Path,
    *,
    config: TunedLensConfig | None = None,
    model_name: str,
    source: str,
    overwrite: bool = False,
) -> Iterator[LensStep]:
    """Train a lens into `folder` (a `lenses/<name>`) and yield every step; the artefact is finished after the last.

    `contexts [n, pos]` and `heldout [m, pos]` are tokens; `source` names their origin. The manifest's summary has, per
    hook point, `kl_logit` and `kl_tuned` on `heldout`, and `kept`: true where the translator beat the plain lens.

    Raises `ConfigError` for too few contexts, `NonFiniteError` when the loss is not finite, `MismatchError` when the
    folder holds an unfinished run with other settings.
    """
    run = _Run(model, contexts, heldout, as_path(folder), config or TunedLensConfig(), model_name, source, overwrite)
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
    """Residuals at drawn positions, and the model's output there."""

    resid: dict[str, Tensor]
    """hook point -> `[n, d_model]`"""
    target: Tensor
    """`[n, d_vocab]` log-probabilities, float32"""


class _Run:
    """One training run: opened or resumed, advanced step by step, finished."""

    def __init__(
        self,
        model: HookedModel,
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
        """False during an optimizer step: an interrupt then writes no checkpoint"""
        self._resume()
        self.units = {n: float(r.float().pow(2).mean().sqrt()) for n, r in self.sample(self.contexts, 0).resid.items()}

    def step(self) -> float:
        """Take one step for every layer and return the mean loss."""
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
        """Return the weight and bias of one hook point."""
        return self.values[f"{name}.weight"], self.values[f"{name}.bias"]

    def read(self, name: str, resid: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return logits of `resid [n, d_model]` through a translator whose bias is in units of the layer."""
        translated = resid.float()
        translated = translated + translated @ weight + bias * self.units[name]
        return final_norm_and_unembed(self.model, translated.to(resid.dtype)).float()

    @torch.no_grad()
    def sample(self, contexts: Tensor, draw: int | str, n: int | None = None) -> _Sample:
        """Return sample `draw` of positions; it depends on the seed and `draw` only, not on earlier samples."""
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
    def measure(self, contexts: Tensor, stream: str) -> dict[str, tuple[float, float]]:
        """Return the mean KL per hook point, `(logit lens, tuned lens)`, on samples of the named random stream."""
        n = self.config.heldout_positions
        sizes = [min(self.config.positions, n - done) for done in range(0, n, self.config.positions)]
        sums = {name: [0.0, 0.0] for name in self.names}
        for i, size in enumerate(sizes):
            sample = self.sample(contexts, f"{stream} {i}", size)
            for name in self.names:
                weight, bias = self.translator(name)
                for j, factor in enumerate((0, 1)):
                    logits = self.read(name, sample.resid[name], factor * weight, factor * bias)
                    sums[name][j] += float(kl_divergence(sample.target, logits).sum()) / n
        return {name: (plain, tuned) for name, (plain, tuned) in sums.items()}

    def checkpoint(self, loss: float | None) -> None:
        """Write everything that the rest of the run depends on; within an optimizer step, do nothing."""
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
        """Set translators to zero that do not help, measure the lens, and finish the artefact."""
        better = {name: tuned < plain for name, (plain, tuned) in self.measure(self.deciding, "decide").items()}
        with torch.no_grad():
            for key, value in self.values.items():
                value.mul_(better[key.rpartition(".")[0]])
        measured = self.measure(self.heldout, "heldout")
        summary = {
            "n_heldout": self.config.heldout_positions,
            "kl": {n: {"kl_logit": a, "kl_tuned": b, "kept": better[n]} for n, (a, b) in measured.items()},
        }
        config = self.draft.config
        weights = {name: self.translator(name)[0].detach().cpu() for name in self.names}
        biases = {name: (self.translator(name)[1].detach() * self.units[name]).cpu() for name in self.names}
        TunedLens(weights, biases, config["weight_hash"]).save(self.draft.path)
        (self.draft.path / CHECKPOINT).unlink(missing_ok=True)
        self.draft.finish(summary=summary, parents={f"model:{config['model']}": config["weight_hash"]})

    def _resume(self) -> None:
        """Restore the checkpoint, if there is one."""
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
