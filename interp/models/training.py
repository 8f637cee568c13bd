"""The training loop of small models: a generator of metrics, for scripts, notebooks and tests.

    for step in train_small(model, batches, TrainingConfig(steps=1000)):
        print(step.step, step.loss)

`batches(n, generator)` gives `n` rows of tokens `[n, pos]`; the loss is the mean next-token cross-entropy in nats.
Plain AdamW, a linear warm-up, then a constant rate. The same seed gives the same weights for one number of threads.

The forward pass runs without the bridge's hooks: in training no activation is read, and hooks make a step half as slow
again. The weights are the bridge's own tensors, so gradients reach them.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einops import rearrange

from interp.artifacts import atomic_file
from interp.errors import CorruptError, NonFiniteError
from interp.models.hooked import HookedModel
from interp.options import check_least, check_positive
from interp.seeds import make_generator

if TYPE_CHECKING:  # torch is loaded by the first step, so shapes are strings, which no test checks
    import torch
    from jaxtyping import Float, Int, Int64
    from torch import Tensor
    from transformer_lens.model_bridge.sources.native.model import NativeModel


Batches = Callable[[int, "torch.Generator"], "Int64[Tensor, 'n pos']"]
"""`batches(n, generator)` -> `[n, pos]` int64 tokens"""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings for training a small model."""

    steps: int = 1000
    batch_size: int = 64
    """rows of tokens per step"""
    lr: float = 1e-3
    warmup_steps: int = 100
    """steps over which the learning rate rises linearly from 0 to `lr`"""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    log_every: int = 50
    """steps between yielded values; the last step is always yielded"""
    seed: int = 0
    """seed of the data; the weights have their own, given when the model is built"""

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch_size", "log_every", "lr")
        check_least(self, {"warmup_steps": 0})


@dataclass(frozen=True)
class TrainingStep:
    """State after one step. The given model is trained in place."""

    step: int
    """1 after the first update"""
    tokens: int
    """tokens seen"""
    loss: float
    """nats, mean over the steps since the last value"""
    metrics: dict[str, float]
    """result of `measure`; empty without it"""


class TrainingFile:
    """State of a training loop in a file, written atomically, from which it continues to the same bits."""

    def __init__(self, path: Path):
        self.path = path

    def save(
        self,
        weights: "Mapping[str, Tensor]",
        optimizer: "torch.optim.Optimizer",
        generators: "Sequence[torch.Generator]",
        step: int,
        facts: object = None,
    ) -> None:
        """Write the state after `step`; `facts` are JSON."""
        from safetensors.torch import save_file

        tensors = {f"weights/{name}": value.detach() for name, value in weights.items()}
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{name}": value for name, value in state.items()}
        tensors |= {f"generator/{number}": generator.get_state() for number, generator in enumerate(generators)}
        with atomic_file(self.path) as temporary:
            metadata = {"step": str(step), "facts": json.dumps(facts)}
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, temporary, metadata)

    def add(self, step: int, tensors: "Mapping[str, Tensor]") -> None:
        """Write tensors of a step into a file of their own, before the state of that step."""
        from safetensors.torch import save_file

        with atomic_file(self.path.with_name(f"{self.path.stem}-{step:09d}.safetensors")) as temporary:
            save_file(dict(tensors), temporary)

    def added(self, last: int) -> "Iterator[tuple[int, dict[str, Tensor]]]":
        """Yield what was added up to a step, in order."""
        from safetensors.torch import load_file

        for path in sorted(self.path.parent.glob(f"{self.path.stem}-*.safetensors")):
            if (step := int(path.stem.rpartition("-")[2])) <= last:
                yield step, load_file(path)

    def load(
        self,
        weights: "Mapping[str, Tensor]",
        optimizer: "torch.optim.Optimizer",
        generators: "Sequence[torch.Generator]",
    ) -> tuple[int, Any]:
        """Restore the state into the arguments; return its step and facts, `(0, None)` where there is no file.

        Raises `CorruptError` where the file is damaged or of other weights.
        """
        import torch
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return 0, None
        try:
            with safe_open(self.path, "pt") as file, torch.no_grad():
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
                step, facts = int(file.metadata()["step"]), json.loads(file.metadata()["facts"])
                for name, value in weights.items():
                    value.copy_(tensors[f"weights/{name}"])
                for number, generator in enumerate(generators):
                    generator.set_state(tensors[f"generator/{number}"])
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CorruptError(f"{self.path} is damaged ({error}); remove {self.path.parent} to start again") from None
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                _, number, part = name.split("/")
                states.setdefault(int(number), {})[part] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
        return step, facts


def train_small(
    model: HookedModel,
    batches: Batches,
    config: TrainingConfig,
    *,
    measure: Callable[[HookedModel], dict[str, float]] | None = None,
    state: TrainingFile | None = None,
    at: Collection[int] = (),
) -> Iterator[TrainingStep]:
    """Train a model in place, yielding every `log_every` steps; `measure(model)` runs at each of those.

    With steps `at`, it yields after those alone, and after the last one.

    `batches(n, generator)` draws `n` rows of tokens, `[n, pos]`.

    Stop iterating to stop training. The model is in evaluation mode whenever the caller has control. With `state`, an
    interrupted training repeats its earlier yields, with the model of the last of them, and continues. Raises
    `NonFiniteError` when the loss is NaN or infinite.
    """
    import torch

    generator = make_generator(config.seed, "training data")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, foreach=True
    )
    losses: list[Tensor] = []
    weights = dict(model.named_parameters())
    first, facts = state.load(weights, optimizer, [generator]) if state else (0, None)
    yielded = [TrainingStep(row["step"], row["tokens"], row["loss"], row["metrics"]) for row in facts or ()]
    yield from yielded
    tokens, forward = yielded[-1].tokens if yielded else 0, training_forward(model.train())
    for step in range(first + 1, config.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, step / max(1, config.warmup_steps))
        batch = batches(config.batch_size, generator).to(model.cfg.device)
        losses.append(_update(forward, optimizer, batch))
        tokens += batch.numel()
        if (step in at if at else step % config.log_every == 0) or step == config.steps:
            loss = float(torch.stack(losses).mean())
            losses.clear()
            if not loss < float("inf"):
                raise NonFiniteError(f"the loss is {loss} at step {step}; use a lower lr (it is {config.lr})")
            model.eval()
            yielded.append(TrainingStep(step, tokens, loss, _measured(model, measure)))
            if state:
                state.save(weights, optimizer, [generator], step, [asdict(row) for row in yielded])
            yield yielded[-1]
            forward = training_forward(model.train())  # the caller may have hooked it


def _update(
    forward: "Callable[[Tensor], Tensor]", optimizer: "torch.optim.Optimizer", tokens: "Int[Tensor, 'batch pos']"
) -> "Float[Tensor, '']":
    import torch
    from torch.nn.functional import cross_entropy

    with torch.enable_grad():
        logits = forward(tokens)[:, :-1]
        loss = cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return loss.detach()


def _measured(model: HookedModel, measure: Callable[[HookedModel], dict[str, float]] | None) -> dict[str, float]:
    import torch

    if measure is None:
        return {}
    with torch.no_grad():
        return measure(model)


_WRAPPER = "_original_component."


def training_forward(model: HookedModel) -> "Callable[[Int[Tensor, 'batch pos']], Float[Tensor, 'batch pos d_vocab']]":
    """Return a function from `tokens [n, pos]` to logits `[n, pos, d_vocab]`, equal to the model up to rounding.

    A model not built by `build_small`, or with hooks attached, is returned itself.
    """
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge.sources.native.model import NativeModel

    native = getattr(model, "original_model", None)
    hooked = any(hook._forward_hooks or hook._backward_hooks for hook in model.modules() if isinstance(hook, HookPoint))
    if hooked or not isinstance(native, NativeModel) or model.cfg.act_fn not in ("gelu", "relu", "silu"):
        return model
    return _Unhooked(model, native)


class _Unhooked:
    """Forward pass of a native model: pre-norm blocks of causal attention, with or without an MLP."""

    def __init__(self, model: HookedModel, native: "NativeModel"):
        from torch.nn import functional

        self.weights = {name.replace(_WRAPPER, ""): weight for name, weight in native.named_parameters()}
        self.cfg, self.rotary = model.cfg, native.rotary
        self.act = getattr(functional, model.cfg.act_fn)

    def __call__(self, tokens: "Int[Tensor, 'batch pos']") -> "Float[Tensor, 'batch pos d_vocab']":
        weights = self.weights
        x = weights["tok_embed.weight"][tokens]
        if self.rotary is None:
            x = x + weights["pos.weight"][: tokens.shape[1]]
        for layer in range(self.cfg.n_layers):
            x = self._attend(x, f"layers.{layer}.")
            if not self.cfg.attn_only:
                x = self._think(x, f"layers.{layer}.")
        return self._norm(x, "ln_out") @ weights["head.weight"].T

    def _attend(self, x: "Float[Tensor, 'batch pos d_model']", at: str) -> "Float[Tensor, 'batch pos d_model']":
        import torch
        from torch.nn.functional import linear, scaled_dot_product_attention

        names = [f"{at}attn.{name}." for name in "qkv"]
        weight, bias = (torch.cat([self.weights[name + kind] for name in names]) for kind in ("weight", "bias"))
        read = linear(self._norm(x, at + "ln1"), weight, bias)
        axes = "batch pos (side head d_head) -> side batch head pos d_head"
        q, k, v = rearrange(read, axes, side=3, head=self.cfg.n_heads)
        if self.rotary is not None:
            q, k = self.rotary.apply_rope(q, k)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = rearrange(mixed, "batch head pos d_head -> batch pos (head d_head)")
        return x + linear(mixed, self.weights[f"{at}attn.o.weight"], self.weights[f"{at}attn.o.bias"])

    def _think(self, x: "Float[Tensor, 'batch pos d_model']", at: str) -> "Float[Tensor, 'batch pos d_model']":
        from torch.nn.functional import linear

        w, into, out = self.weights, f"{at}mlp.fc_in.", f"{at}mlp.fc_out."
        inner = self.act(linear(self._norm(x, at + "ln2"), w[into + "weight"], w[into + "bias"]))
        return x + linear(inner, w[out + "weight"], w[out + "bias"])

    def _norm(self, x: "Float[Tensor, 'batch pos d_model']", name: str) -> "Float[Tensor, 'batch pos d_model']":
        from torch.nn.functional import layer_norm, rms_norm

        weight, width = self.weights.get(name + ".weight"), x.shape[-1:]
        if weight is None:
            return x
        if self.cfg.normalization_type == "RMS":
            return rms_norm(x, width, weight, self.cfg.eps)
        return layer_norm(x, width, weight, self.weights[name + ".bias"], self.cfg.eps)
