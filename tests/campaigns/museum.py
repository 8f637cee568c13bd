"""The museum of bugs: symptoms that users of the field's tools reported, each a change of a healthy set-up.

Every exhibit changes a fresh set-up (`Patient`) by a seeded operator; what it patches in the workbench itself is put
back afterwards. `where` names the families or dictionaries in which the change is one at all.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from interp.text.passages import PASSAGES
from saes.evaluation.dictionary_checks import CardScores
from saes.kinds.base import SAE


@dataclass
class Patient:
    """A healthy set-up that an exhibit changes."""

    family: str
    model: Any
    generator: torch.Generator
    sae: SAE | None = None
    said: CardScores = field(default_factory=CardScores)
    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def layer(self) -> int:
        """Draw a layer."""
        return int(torch.randint(self.model.cfg.n_layers, (1,), generator=self.generator))

    def factor(self, low: float, high: float) -> float:
        """Draw a factor."""
        return low + (high - low) * float(torch.rand(1, generator=self.generator))

    def patch(self, target: str, value: Any) -> None:
        """Replace an attribute of the workbench, `module.Class.name`, until the end."""
        self.undo.enter_context(mock.patch(target, value))

    def weights(self, *ends: str) -> list[Tensor]:
        """Return the parameters of the wrapped model whose names end so, in the order of layers."""
        from interp.models.identity import plain_parameters

        found = [p for name, p in plain_parameters(self.model.original_model) if name.endswith(ends)]
        assert found, f"{self.family} has no parameter that ends with {ends}"
        return found

    def point(self, name: str) -> Any:
        """Return a hook point."""
        from interp.models.adapter import hook_points_by_name

        return hook_points_by_name(self.model)[name]


@dataclass(frozen=True)
class Exhibit:
    """One bug: what happened, where it was seen, and how it is rebuilt."""

    name: str
    seen: str
    """Issue or change log; empty where only the symptom is known."""
    where: tuple[str, ...]
    apply: Callable[[Patient], None]
    kind: str
    """`model`, `edits` or `dictionary`."""


EXHIBITS: list[Exhibit] = []
LLAMAS = ("llama", "mistral", "qwen2")
ANY = ("llama", "gpt2", "pythia", "gemma2", "qwen3", "phi")


def exhibit(
    name: str, *, seen: str = "", where: tuple[str, ...] = ANY, kind: str = "model"
) -> Callable[[Callable[[Patient], None]], Callable[[Patient], None]]:
    """Return a decorator that adds an exhibit."""

    def added(function: Callable[[Patient], None]) -> Callable[[Patient], None]:
        EXHIBITS.append(Exhibit(name, seen, where, function, kind))
        return function

    return added


# ---- the model is another one


@exhibit("attention scale or query weights off by a factor", where=LLAMAS)
def scale(patient: Patient) -> None:
    patient.weights("q_proj.weight")[patient.layer()].data *= patient.factor(1.2, 2)


@exhibit("heads permuted in the output projection", where=LLAMAS)
def permuted_heads(patient: Patient) -> None:
    weight = patient.weights("o_proj.weight")[patient.layer()]
    d = patient.model.cfg.d_head
    weight.data = torch.cat([weight.data[:, d : 2 * d], weight.data[:, :d], weight.data[:, 2 * d :]], 1)


@exhibit("a square weight transposed", where=LLAMAS)
def transposed(patient: Patient) -> None:
    weight = patient.weights("o_proj.weight")[patient.layer()]
    weight.data = weight.data.T.contiguous()


@exhibit("key-value heads swapped", where=LLAMAS)
def swapped_kv(patient: Patient) -> None:
    weight = patient.weights("k_proj.weight")[patient.layer()]
    weight.data = weight.data.roll(patient.model.cfg.d_head, 0)


@exhibit("rotary base of another model", where=LLAMAS)
def rotary_base(patient: Patient) -> None:
    share = patient.factor(0.5, 0.9)
    for name, buffer in patient.model.original_model.named_buffers():
        if name.endswith("inv_freq"):
            buffer.data.copy_(buffer.data**share)


@exhibit("sliding window left out", where=("mistral", "gemma2"))
def window(patient: Patient) -> None:
    patient.model.original_model.config.sliding_window = None
    for module in patient.model.original_model.modules():
        if hasattr(module, "sliding_window"):
            module.sliding_window = None


@exhibit("bias of one head's values dropped", where=("qwen2", "phi"))
def value_bias(patient: Patient) -> None:
    patient.weights("v_proj.bias")[patient.layer()].data[: patient.model.cfg.d_head] = 0


@exhibit("soft cap of the logits dropped", where=("gemma2",))
def soft_cap(patient: Patient) -> None:
    patient.model.original_model.config.final_logit_softcapping = None


@exhibit("gain of a norm left out", where=ANY)
def norm_gain(patient: Patient) -> None:
    gains = patient.weights("norm.weight", "ln_1.weight", "ln_f.weight", "layernorm.weight")
    gains[patient.layer() % len(gains)].data *= patient.factor(1.5, 3)


@exhibit("embedding edited, unembedding not (a tied pair copied)", where=ANY)
def tied(patient: Patient) -> None:
    weight = patient.weights("embed_tokens.weight", "wte.weight", "embed_in.weight")[0]
    weight.data += 0.1 * torch.randn(weight.shape, generator=patient.generator) * weight.data.std()


@exhibit("weights silently rounded to 8 bits", where=ANY)
def rounded(patient: Patient) -> None:
    for weight in patient.model.original_model.parameters():
        if weight.ndim > 1:
            step = weight.data.abs().max() / 127
            weight.data = (weight.data / step).round() * step


@exhibit("one coordinate overflows in half precision", where=ANY)
def overflow(patient: Patient) -> None:
    point = patient.point(f"blocks.{patient.layer()}.hook_resid_post")
    point.add_hook(lambda value, hook: torch.where(value == value.max(), torch.inf, value))


@exhibit("dropout left on", where=ANY)
def dropout(patient: Patient) -> None:
    patient.point(f"blocks.{patient.layer()}.hook_mlp_out").add_hook(
        lambda value, hook: torch.nn.functional.dropout(value, 0.1)
    )


@exhibit("a hook of an earlier experiment left attached", where=ANY)
def left_attached(patient: Patient) -> None:
    direction = torch.randn(patient.model.cfg.d_model, generator=patient.generator)
    point = patient.point(f"blocks.{patient.layer()}.hook_resid_post")
    point.add_hook(lambda value, hook: value + 0.2 * value.std() * direction)


# ---- hooks lie


def _points(patient: Patient, *suffixes: str) -> Any:
    suffix = suffixes[int(torch.randint(len(suffixes), (1,), generator=patient.generator))]
    return patient.point(f"blocks.{patient.layer()}.{suffix}")


@exhibit("a hook never fires", seen="TransformerLens #1673, #1527")
def never_fires(patient: Patient) -> None:
    point = _points(patient, "hook_resid_pre", "hook_mlp_out", "hook_attn_out", "attn.hook_z")
    add = type(point).add_hook
    object.__setattr__(
        point, "add_hook", lambda hook, *args, **options: add(point, lambda value, hook: None, *args, **options)
    )


@exhibit("a hook fires and what it returns is dropped", seen="TransformerLens #1673")
def dropped(patient: Patient) -> None:
    point = _points(patient, "hook_resid_pre", "hook_mlp_out", "hook_attn_out", "attn.hook_z")
    add = type(point).add_hook

    def reading(hook: Any, *args: Any, **options: Any) -> Any:
        return add(point, lambda value, hook, own=hook: (own(value, hook=hook), None)[1], *args, **options)

    object.__setattr__(point, "add_hook", reading)


def _seeing(point: Any, change: Callable[[Tensor], Tensor]) -> None:
    """Let hooks of a point see and write changed values."""
    add = type(point).add_hook

    def added(hook: Any, *args: Any, **options: Any) -> Any:
        return add(point, lambda value, hook, own=hook: own(change(value), hook=hook), *args, **options)

    object.__setattr__(point, "add_hook", added)


@exhibit("a hook sees values of the position before")
def moved(patient: Patient) -> None:
    _seeing(_points(patient, "hook_resid_pre", "hook_mlp_out", "hook_attn_out"), lambda value: value.roll(1, 1))


@exhibit("a hook sees the values of another layer", seen="Decode's integration notes: equal names at other sites")
def other_layer(patient: Patient) -> None:
    layer = patient.layer() % (patient.model.cfg.n_layers - 1)
    first, second = (patient.point(f"blocks.{n}.hook_mlp_out") for n in (layer, layer + 1))
    seen: dict[str, Tensor] = {}
    first.add_hook(lambda value, hook: seen.update(value=value))
    _seeing(second, lambda value: seen["value"])


@exhibit("heads in another order at the hook than in the weights")
def hook_heads(patient: Patient) -> None:
    _seeing(_points(patient, "attn.hook_z"), lambda value: value.roll(1, -2) if value.ndim == 4 else value.roll(8, -1))


@exhibit("a hook detaches: gradients end at it")
def detached(patient: Patient) -> None:
    names = (
        "hook_resid_post",
        "hook_mlp_out",
        "hook_attn_out",
        "attn.hook_z",
        "attn.hook_q",
        "attn.hook_v",
        "ln2.hook_out",
    )
    _points(patient, *names).add_hook(lambda value, hook: value.detach())


@exhibit("what a hook shows is scaled, what it writes is not", where=("llama", "gpt2", "gemma2", "opt"))
def shown_scaled(patient: Patient) -> None:
    point, factor = _points(patient, "mlp.hook_in", "ln2.hook_out", "attn.o.hook_out"), patient.factor(1.05, 1.5)
    add = type(point).add_hook

    def added(hook: Any, *args: Any, **options: Any) -> Any:
        def shown(value: Tensor, hook: Any, own: Any = hook) -> Any:
            written = own(value * factor, hook=hook)
            return None if written is None else value + (written - value * factor)

        return add(point, shown, *args, **options)

    object.__setattr__(point, "add_hook", added)


@exhibit("scores shown as a pattern", where=ANY)
def no_softmax(patient: Patient) -> None:
    _seeing(_points(patient, "attn.hook_pattern"), lambda value: value * 1.5)


# ---- text and batches


@exhibit("BOS dropped", seen="SAELens #333, #350")
def bos_dropped(patient: Patient) -> None:
    _tokens(patient, lambda ids: ids[:, 1:])


@exhibit("BOS doubled", seen="SAELens #472")
def bos_doubled(patient: Patient) -> None:
    _tokens(patient, lambda ids: torch.cat([ids[:, :1], ids], 1))


def _tokens(patient: Patient, change: Callable[[Tensor], Tensor]) -> None:
    from interp.models import adapter

    real = adapter.to_tokens
    for module in ("interp.doctor._prompts", "interp.doctor._model_checks"):
        patient.patch(f"{module}.to_tokens", lambda model, text: change(real(model, text)))


@exhibit("a tokenizer of another revision")
def other_tokenizer(patient: Patient) -> None:
    from interp.models.identity import HubTokenizer

    real = HubTokenizer.encode_batch
    common = sorted(set(patient.model.tokenizer(PASSAGES[0])["input_ids"]))
    one, other = (common[int(at)] for at in torch.randperm(len(common), generator=patient.generator)[:2])

    def swapped(self: Any, texts: list[str]) -> list[list[int]]:
        turn = {one: other, other: one}
        return [[turn.get(token, token) for token in ids] for ids in real(self, texts)]

    patient.patch("interp.models.identity.HubTokenizer.encode_batch", swapped)


@exhibit("left padding counted as positions", where=("gpt2", "opt"))
def padded_positions(patient: Patient) -> None:
    _forward(patient, lambda tokens, options: options | {
        "position_ids": torch.arange(tokens.shape[1])[None].expand(len(tokens), -1)
    })  # fmt: skip


@exhibit("attention mask ignored", where=ANY)
def mask_ignored(patient: Patient) -> None:
    _forward(patient, lambda tokens, options: {k: v for k, v in options.items() if k != "attention_mask"})


def _forward(patient: Patient, change: Callable[[Tensor, dict[str, Any]], dict[str, Any]]) -> None:
    model = patient.model
    real = type(model).forward

    def forward(tokens: Tensor, *args: Any, **options: Any) -> Any:
        return real(model, tokens, *args, **(change(tokens, options) if "attention_mask" in options else options))

    object.__setattr__(model, "forward", forward)


@exhibit("a head sees later tokens", where=ANY)
def later(patient: Patient) -> None:
    point = patient.point(f"blocks.{patient.layer()}.attn.hook_pattern")
    point.add_hook(lambda value, hook: value.flip(-1) * 0.2 + value * 0.8)


@exhibit("cached generation ignores the prompt", seen="transformers 5.24 under TransformerLens 4.3", where=ANY)
def cache_lost(patient: Patient) -> None:
    from interp.models import adapter, generation

    real = generation.NextToken.__call__

    def forgetful(self: Any, tokens: Tensor) -> Tensor:
        if self._cache is not None:
            self._cache = adapter.key_value_cache(self.model)
            self.options = {"past_key_values": self._cache, "use_cache": True}
        return real(self, tokens)

    patient.patch("interp.models.generation.NextToken.__call__", forgetful)


# ---- edits


@exhibit("steering one token late", seen="Neuronpedia #204", kind="edits")
def one_late(patient: Patient) -> None:
    from interp.interventions import apply

    real = apply._Where.mask
    patient.patch(
        "interp.interventions.apply._Where.mask", lambda self, step, value: real(self, step, value).roll(1, 1)
    )


@exhibit("strength in other units than stated", kind="edits")
def other_units(patient: Patient) -> None:
    from interp.interventions import apply

    changed, change_of, factor = apply.changed, apply.change_of, patient.factor(1.3, 3)

    def scaled(value: Tensor, *step: Any) -> Tensor:
        return value + factor * (changed(value, *step) - value)

    patient.patch("interp.interventions.apply.changed", scaled)
    patient.patch("interp.interventions.apply.change_of", lambda *step: factor * change_of(*step))


@exhibit("an intervention of strength 0 changes something", kind="edits")
def not_nothing(patient: Patient) -> None:
    from interp.interventions import edits

    real, noise = edits.adding, patient.factor(0.01, 0.1)

    def noisy(added: Any) -> Any:
        inner = real(added)
        return lambda value, hook=None: inner(value, hook) + noise * value.std()

    patient.patch("interp.interventions.apply.adding", noisy)


@exhibit("steering while generating starts at the wrong token", seen="Neuronpedia #204", kind="edits")
def wrong_offset(patient: Patient) -> None:
    from interp.interventions import apply

    real = apply._Where.mask
    patient.patch(
        "interp.interventions.apply._Where.mask",
        lambda self, step, value: real(self, step, value) & (value.shape[1] > 1),
    )


@exhibit("a patch takes the other run's values a position off", kind="edits")
def patch_moved(patient: Patient) -> None:
    from interp.interventions import apply

    real = apply._Where.of_other_run
    patient.patch(
        "interp.interventions.apply._Where.of_other_run", lambda self, other, value: real(self, other.roll(1, 1), value)
    )


@exhibit("an intervention reaches only the first row of a batch", kind="edits")
def first_row(patient: Patient) -> None:
    from interp.interventions import apply

    real = apply._Where.mask
    patient.patch(
        "interp.interventions.apply._Where.mask",
        lambda self, step, value: real(self, step, value) & (torch.arange(len(value)) == 0)[:, None],
    )


# ---- dictionaries


def _sae(patient: Patient) -> Any:
    assert patient.sae is not None
    return patient.sae


@exhibit("activations not rescaled to the training scale", kind="dictionary")
def units(patient: Patient) -> None:
    sae, factor = _sae(patient), patient.factor(1.6, 4)
    sae.W_enc.data, sae.W_dec.data, sae.b_dec.data = sae.W_enc / factor, sae.W_dec * factor, sae.b_dec * factor


@exhibit("dictionary applied a layer off", kind="dictionary")
def layer_off(patient: Patient) -> None:
    _sae(patient).hook_point = "blocks.2.hook_resid_post"


@exhibit("dictionary applied to the middle of the block", kind="dictionary")
def at_mid(patient: Patient) -> None:
    _sae(patient).hook_point = "blocks.1.hook_resid_mid"


@exhibit("decoder rows in another order than latents", kind="dictionary")
def shuffled_rows(patient: Patient) -> None:
    sae = _sae(patient)
    sae.W_dec.data = sae.W_dec[torch.randperm(sae.d_sae, generator=patient.generator)]


@exhibit("b_dec not subtracted from the input", kind="dictionary")
def not_subtracted(patient: Patient) -> None:
    sae = _sae(patient)
    sae.encoder_input = lambda x: x.to(sae.W_enc.dtype)


@exhibit("b_dec added twice", kind="dictionary")
def added_twice(patient: Patient) -> None:
    sae = _sae(patient)
    real = sae.decode
    sae.decode = lambda acts: real(acts) + sae.b_dec


@exhibit("b_dec with the other sign", kind="dictionary")
def other_sign(patient: Patient) -> None:
    sae = _sae(patient)
    sae.b_dec.data = -sae.b_dec


@exhibit("encoder bias with the other sign", where=("biased jumprelu",), kind="dictionary")
def other_encoder_sign(patient: Patient) -> None:
    sae = _sae(patient)
    sae.b_enc.data = -sae.b_enc


@exhibit("decoder rows with 40 % noise", kind="dictionary")
def noisy_rows(patient: Patient) -> None:
    sae = _sae(patient)
    noise = torch.randn(sae.W_dec.shape, generator=patient.generator)
    sae.W_dec.data = sae.W_dec + 0.4 * sae.W_dec.norm(dim=1, keepdim=True) * noise / noise.norm(dim=1, keepdim=True)


@exhibit("threshold 1.6 times too large", where=("jumprelu",), kind="dictionary")
def larger_threshold(patient: Patient) -> None:
    _sae(patient).threshold.data *= 1.6


@exhibit("activations scaled in the encoder, not in the decoder", kind="dictionary")
def one_side(patient: Patient) -> None:
    sae = _sae(patient)
    sae.W_enc.data = sae.W_enc / patient.factor(1.6, 3)


@exhibit("decoder rows without the norms they had", kind="dictionary")
def row_norms(patient: Patient) -> None:
    sae = _sae(patient)
    sae.W_dec.data = sae.W_dec * (0.4 + 1.2 * torch.rand(sae.d_sae, 1, generator=patient.generator))


@exhibit("some decoder rows in another order", kind="dictionary")
def some_rows(patient: Patient) -> None:
    sae = _sae(patient)
    chosen = torch.randperm(sae.d_sae, generator=patient.generator)[: sae.d_sae // 4]
    rows = sae.W_dec.detach().clone()
    rows[chosen] = rows[chosen.roll(1)]
    sae.W_dec.data = rows


@exhibit("TopK without ReLU", kind="dictionary")
def no_relu(patient: Patient) -> None:
    sae = _sae(patient)

    def activate(pre: Tensor) -> Tensor:
        _, latents = pre.abs().topk(getattr(sae, "k", 8), dim=-1)
        return torch.zeros_like(pre).scatter(-1, latents, pre.gather(-1, latents))

    sae.activate = activate


@exhibit("threshold missing: BatchTopK read as ReLU", seen="SAELens change log 6.26.2", where=("jumprelu",),
         kind="dictionary")  # fmt: skip
def no_threshold(patient: Patient) -> None:
    _sae(patient).threshold.data.zero_()


@exhibit("threshold in other units", where=("jumprelu",), kind="dictionary")
def threshold_units(patient: Patient) -> None:
    _sae(patient).threshold.data *= patient.factor(3, 8)


@exhibit("a dictionary of another state of the model", kind="dictionary")
def other_weights(patient: Patient) -> None:
    for weight in patient.model.original_model.parameters():
        weight.data += 0.05 * weight.data.std() * torch.randn(weight.shape, generator=patient.generator)


@exhibit("encoder transposed or of another dictionary", kind="dictionary")
def other_encoder(patient: Patient) -> None:
    sae = _sae(patient)
    sae.W_enc.data = sae.W_enc[:, torch.randperm(sae.d_sae, generator=patient.generator)]
