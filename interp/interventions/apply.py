"""Interventions done in a model: their hooks, and the context manager around a pass.

    with intervened(model, steps, {"saes/demo": sae}):
        logits = model(tokens)

Nothing but the change is written: to set a latent, the difference from its present activation is added along its
direction, so the reconstruction error stays as it is. Steps on one dictionary are done in turn, on activations that
were read once. Latents that write to several layers (cross-layer transcoders) need `interp.tracing`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.dictionary import Dictionary
from interp.errors import ConfigError, MismatchError, UnknownNameError
from interp.interventions.edits import EVERYTHING, Slot, adding, at_mask, change_of, changed, inserting
from interp.interventions.intervention import COMPONENT, Component, Direction, Intervention, Latent
from interp.interventions.site import DictionarySite
from interp.models.adapter import Hook, available_hook_points, bos_token_id, head_shape
from interp.models.generation import Offset
from interp.models.hooked import HookedModel
from interp.models.passes import capture
from interp.names import canonical_hook_point, check_hook_points

Hooks = list[tuple[str, Hook]]
Dictionaries = Mapping[str, Dictionary | Mapping[int, Dictionary]]
"""Key -> the dictionary, or layer -> dictionary."""


@contextmanager
def intervened(
    model: HookedModel, steps: Sequence[Intervention], dictionaries: Dictionaries | None = None
) -> Iterator[None]:
    """Apply the interventions to every pass inside the `with` block.

    Args:
        model: runs changed within the block, unchanged after it.
        steps: what is changed, how, and by how much.
        dictionaries: those of the latents in `steps`, by key (`saes/demo`); not needed for directions and components.
    Raises:
        UnknownNameError, ConfigError, MismatchError: as `hooks_of` does.

    >>> with intervened(model, [Intervention(target=Component(name="L1H0"), action="ablate")]):
    ...     ablated_logits = model(tokens)
    >>> ablated_logits.shape
    torch.Size([1, 20, 257])
    """
    with model.hooks(fwd_hooks=hooks_of(model, steps, dictionaries)):
        yield


def hooks_of(
    model: HookedModel,
    steps: Sequence[Intervention],
    dictionaries: Dictionaries | None = None,
    *,
    offset: Offset | None = None,
    between: Hooks | None = None,
) -> Hooks:
    """Return the hooks of interventions, those on latents first, the others in the order given.

    Only text that is written with a cache needs them; `intervened` is simpler for whole texts.

    Args:
        model: the model that will run.
        steps: what is changed, how, and by how much.
        dictionaries: those of the latents in `steps`, by key.
        offset: counts the tokens of earlier, cached passes.
        between: hooks that run after activations are read and before changes are written, such as those that put a
            dictionary's reconstruction in.
    Returns: pairs of a hook point and a function, for `run_with_hooks`.
    Raises:
        UnknownNameError: a hook point, component or dictionary that is not there.
        ConfigError: a latent that is not there.
        MismatchError: a direction of another width.

    >>> hooks = hooks_of(model, [Intervention(target=Component(name="L1H0"), action="ablate")])
    >>> torch.equal(run_with_hooks(model, tokens, hooks), model(tokens))
    False
    """
    where = _Where(offset or Offset(), int(bos_token_id(model) is not None))
    groups: dict[tuple[str, int | None], list[Intervention]] = {}
    for step in steps:
        if isinstance(step.target, Latent):
            groups.setdefault((step.target.dictionary, step.target.layer), []).append(step)
    reads, writes = [], []
    for (key, layer), mine in groups.items():
        site = DictionarySite.of(model, _dictionary(dictionaries or {}, key, layer))
        latents = _Latents(site, mine, where)
        reads.append((site.reads, latents.read))
        writes.append((site.writes, latents.write))
    hooks: Hooks = [*reads, *(between or []), *writes]
    for step in steps:
        if isinstance(step.target, Direction):
            hooks.append(_along(model, step.target, step, where))
        elif isinstance(step.target, Component):
            hooks.append(_component(model, step.target, step, where))
    check_hook_points([name for name, _ in hooks], available_hook_points(model), model.cfg.n_layers)
    return hooks


@dataclass(frozen=True)
class ComponentAt:
    """A component of one model."""

    layer: int
    point: str
    """hook point of the value that contains it"""
    index: int | None
    """head or neuron; None for the whole value"""

    @property
    def slot(self) -> Slot:
        """Index of the component in the value."""
        if self.index is None:
            return EVERYTHING
        return (slice(None), slice(None), self.index) if self.point.endswith("hook_z") else (..., self.index)


def component_at(model: HookedModel, name: str) -> ComponentAt:
    """Return a component of a model. Raises `UnknownNameError` for another name, or one that the model lacks."""
    match = COMPONENT.fullmatch(Component(name=name).name)
    assert match is not None  # `Component` checks it
    shape = head_shape(model)
    layer, head, neuron = int(match[1]), match[2], match[3]
    size = shape.n_heads if head or match[5] else (shape.d_mlp or 0)
    index = int(head or neuron) if head or neuron else None
    if layer >= shape.n_layers or size == 0 or (index or 0) >= size:
        raise UnknownNameError(
            "component", name, [], f"The model has {shape.n_layers} layers of {shape.n_heads} heads and "
            f"{'no MLP' if shape.d_mlp is None else f'{shape.d_mlp} neurons'}, all counted from 0."
        )  # fmt: skip
    point = "attn.hook_z" if head or match[5] else "hook_mlp_out" if match[4] else "mlp.hook_post"
    return ComponentAt(layer, f"blocks.{layer}.{point}", index)


@dataclass(frozen=True)
class _Where:
    """Positions of a pass, counted from the start of the text."""

    offset: Offset
    first: int
    """positions at the start that are left alone unless a step names them"""

    def mask(self, step: Intervention, value: Tensor) -> Tensor:
        """Return the positions of a value `[batch, pos, ...]` that a step changes, `[batch or 1, pos]`."""
        start, stop = step.positions or (self.first, None)
        at = self.offset.positions(value.shape[1]).to(value.device)
        return (at >= start) & (at < (len(step.other) if stop is None and step.other else stop or torch.inf))

    def of_other_run(self, values: Tensor, value: Tensor) -> Tensor:
        """Return the part of another run's values `[1, pos, ...]` at the positions of a pass, 0 beyond its end."""
        part = values[:, self.offset.tokens : self.offset.tokens + value.shape[1]].to(value)
        missing = value.shape[1] - part.shape[1]
        return torch.cat([part, part.new_zeros(1, missing, *part.shape[2:])], 1) if missing else part


class _Latents:
    """Hooks of steps on latents of one dictionary: `read` finds the changes, `write` adds them along the directions."""

    def __init__(self, site: DictionarySite, steps: list[Intervention], where: _Where):
        self.site, self.steps, self.where = site, steps, where
        self.latents = [step.target.index for step in steps if isinstance(step.target, Latent)]
        for index in self.latents:
            check_latent(site.dictionary, index)
        vectors = site.directions[self.latents].clone()
        for at, step in enumerate(steps):
            if step.along is not None:
                _check_width(step.along, vectors.shape[1])
                vectors[at] = torch.from_numpy(step.along.vector).to(vectors)
        self.vectors = vectors
        self.others = [_other_run(site.model, step, site.reads, site.dictionary) for step in steps]
        self.changes = torch.empty(0)

    def read(self, value: Tensor, hook: object = None) -> None:
        """Read activations, and store what each step changes, `[batch, pos, n_steps]` float32."""
        x = value.float()
        if all(step.action == "add" for step in self.steps):
            acts = x.new_zeros(*x.shape[:2], len(self.steps))
        else:
            acts = self.site.dictionary.encode(x)[..., self.latents].detach().float()
        known: dict[int, Tensor] = {}
        changes = []
        for at, step in enumerate(self.steps):
            now = known.get(self.latents[at], acts[..., at])
            replaced_by = self.others[at]
            of_other = None if replaced_by is None else self.where.of_other_run(replaced_by[..., self.latents[at]], now)
            new = torch.where(self.where.mask(step, now), changed(now, step.action, step.amount, of_other), now)
            known[self.latents[at]] = new
            changes.append(new - now)
        self.changes = torch.stack(changes, -1) * self.site.size(x)

    def write(self, value: Tensor, hook: object = None) -> Tensor:
        """Add the changes."""
        return value + (self.changes @ self.vectors.to(self.changes)).to(value)


def check_latent(dictionary: Dictionary, index: int) -> None:
    """Raise `ConfigError` for a latent that a dictionary does not have."""
    if not 0 <= index < dictionary.d_sae:
        raise ConfigError(
            f"feature {index} does not exist; choose one of the SAE's features 0 to {dictionary.d_sae - 1}"
        )


def _other_run(
    model: HookedModel, step: Intervention, point: str, dictionary: Dictionary | None = None
) -> Tensor | None:
    """Return what the other run of a step has at a hook point, `[1, pos, ...]`: values, or activations of latents."""
    if step.action != "replace":
        return None
    value = capture(model, torch.tensor([step.other], device=model.cfg.device), [point])[point]
    return value if dictionary is None else dictionary.encode(value.float()).detach()


def _along(model: HookedModel, target: Direction, step: Intervention, where: _Where) -> tuple[str, Hook]:
    """Return the hook that changes the coordinate along a direction."""
    if step.partner is not None:
        return _exchange(target, step.partner, step, where)
    point, vector = canonical_hook_point(target.hook_point), torch.from_numpy(target.vector).float()
    read = vector / vector.square().sum()
    replaced_by = _other_run(model, step, point)

    def change(value: Tensor) -> Tensor:
        _check_width(target, value.shape[-1])
        now = value.float() @ read.to(value.device)
        rows = None if replaced_by is None else where.of_other_run(replaced_by, value).float()
        of_other = None if rows is None else rows @ read.to(value.device)
        return change_of(now, step.action, step.amount, of_other)[..., None] * vector.to(value.device)

    return point, at_mask(adding(change), lambda value: where.mask(step, value))


def _exchange(target: Direction, partner: Direction, step: Intervention, where: _Where) -> tuple[str, Hook]:
    """Return the hook that exchanges the coordinates along two directions, read together by the pseudoinverse."""
    pair = torch.stack([torch.from_numpy(direction.vector).double() for direction in (target, partner)])
    pair = torch.nn.functional.normalize(pair, dim=1)
    read, written = torch.linalg.pinv(pair.T).float(), (pair[0] - pair[1]).float()
    if step.along is not None:
        written = torch.from_numpy(step.along.vector).float()

    def change(value: Tensor) -> Tensor:
        _check_width(target, value.shape[-1])
        first, second = (value.float() @ read.T.to(value.device)).unbind(-1)
        return (second - first)[..., None] * written.to(value.device)

    return canonical_hook_point(target.hook_point), at_mask(adding(change), lambda value: where.mask(step, value))


def _component(model: HookedModel, target: Component, step: Intervention, where: _Where) -> tuple[str, Hook]:
    """Return the hook that changes a component's value."""
    at = component_at(model, target.name)
    replaced_by = _other_run(model, step, at.point)

    def change(value: Tensor) -> Tensor:
        rows = None if replaced_by is None else where.of_other_run(replaced_by, value)
        return changed(value, step.action, step.amount, rows)

    whole = inserting(change, [(slice(None), at.slot)])
    return at.point, at_mask(whole, lambda value: where.mask(step, value))


def _dictionary(dictionaries: Dictionaries, key: str, layer: int | None) -> Dictionary:
    known = dictionaries.get(key)
    if known is None:
        raise UnknownNameError("dictionary", key, list(dictionaries), "Give the dictionary of every latent.")
    if not isinstance(known, Mapping):
        return known
    if layer is None or layer not in known:
        raise UnknownNameError(f"layer of {key}", str(layer), [str(known_layer) for known_layer in known])
    return known[layer]


def _check_width(direction: Direction, width: int) -> None:
    if len(direction.vector) != width:
        raise MismatchError(
            f"the direction {direction.origin!r} has {len(direction.vector)} numbers, {direction.hook_point} holds "
            f"{width} at every position; give one of the same hook point"
        )
