"""Runs inside vLLM's workers, under the Python of that engine: it imports torch and safetensors, and nothing of ours.

vLLM makes its worker class inherit `RowRecorder` (`worker_extension_cls`) and calls its methods by name with plain
values. Hooks read the values of modules in every step of the engine. A step holds the tokens of several requests, one
after another; the rows of a request are recognised by their tokens and positions, which the model itself is given, so
no order of requests is assumed. What is not a whole context is not stored, and is counted.

Where tensors are parallel, every worker computes the whole residual stream; the first one keeps it.
"""

import array
import itertools
import os
from collections import defaultdict, deque
from typing import Any

import torch
from torch import Tensor


class RowRecorder:
    """Methods that vLLM's workers gain; `self` is the worker."""

    rank: int
    model_runner: Any

    def add_vectors(self, vectors: list[list[Any]]) -> list[str]:
        """Add vectors to what modules return, in place of those before: `[path of the module, values]` each.

        Of the two parts that a block returns it is added to the first. Every worker adds it, since each has the whole
        residual stream. Returns the paths that the model lacks.
        """
        modules = dict(self.model_runner.model.named_modules())
        for handle in getattr(self, "_adding_handles", []):
            handle.remove()
        known = [(modules[path], values) for path, values in vectors if path in modules]
        self._adding_handles: list[Any] = [module.register_forward_hook(_Adding(values)) for module, values in known]
        return sorted({path for path, _ in vectors} - modules.keys())

    def record_modules(self, sites: list[list[Any]]) -> dict[str, Any]:
        """Hook modules, in place of those hooked before: `[name, path of the module, "in" or "out", summed]` each.

        Of a summed value the engine holds two parts, which are added: what a block wrote last, and the residual stream
        before.
        Returns the paths that the model lacks, as `{"missing": [...]}`.
        """
        model = self.model_runner.model
        for handle in getattr(self, "_record_handles", []):
            handle.remove()
        self._record_handles: list[Any] = []
        self._record_names = [name for name, _, _, _ in sites]
        modules = dict(model.named_modules())
        missing = sorted({path for _, path, _, _ in sites if path not in modules})
        if missing or self.rank != 0:
            return {"missing": missing}
        self._record_handles.append(model.register_forward_pre_hook(self._begin_step, with_kwargs=True))
        for name, path, side, summed in sites:
            if side == "in":
                hook = _Reading(self, name, summed).before
                self._record_handles.append(modules[path].register_forward_pre_hook(hook, with_kwargs=True))
            else:
                hook = _Reading(self, name, summed).after
                self._record_handles.append(modules[path].register_forward_hook(hook))
        return {"missing": []}

    def record_contexts(self, contexts: list[list[int]]) -> None:
        """Expect the rows of these contexts, given as token ids."""
        self._record_waiting: dict[bytes, deque[int]] = defaultdict(deque)
        self._record_rows: dict[str, Tensor] = {}
        self._record_rows_at = torch.empty(0, dtype=torch.long)
        self._record_n = self._record_strange = 0
        for context in contexts:
            self._record_waiting[_key(context)].append(self._record_n)
            self._record_n += len(context)

    def record_finish(self, path: str) -> dict[str, Any]:
        """Write the rows of all contexts, one after another, as `{name: [n_rows, d]}` into a safetensors file.

        Returns `{"unplaced": contexts without rows, "strange": rows of no whole context, "silent": names of modules
        that were not called}`; nothing is written unless the first and the last are empty.
        """
        if self.rank != 0:
            return {}
        from safetensors.torch import save_file

        unplaced = sum(map(len, self._record_waiting.values()))
        silent = [name for name in self._record_names if name not in self._record_rows]
        if not unplaced and not silent:
            save_file(self._record_rows, f"{path}.{os.getpid()}.tmp")
            os.replace(f"{path}.{os.getpid()}.tmp", path)
        self._record_rows = {}
        return {"unplaced": unplaced, "strange": self._record_strange, "silent": silent}

    def _begin_step(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Find the row of every token of this step, -1 for rows of no context."""
        ids = kwargs["input_ids"].tolist()
        positions = kwargs["positions"].tolist()
        rows_at: list[int] = []
        starts = [at for at in range(len(ids)) if at == 0 or positions[at] != positions[at - 1] + 1] + [len(ids)]
        for start, stop in itertools.pairwise(starts):
            waiting = self._record_waiting.get(_key(ids[start:stop])) if positions[start] == 0 else None
            if waiting:
                first = waiting.popleft()
                rows_at += range(first, first + stop - start)
            else:
                self._record_strange += stop - start
                rows_at += [-1] * (stop - start)
        self._record_rows_at = torch.tensor(rows_at, dtype=torch.long)

    def _keep(self, name: str, value: Tensor) -> None:
        """Copy the rows of a value that belong to contexts; the engine writes over its tensors later."""
        rows_at = self._record_rows_at
        value = value.reshape(-1, value.shape[-1])[: len(rows_at)]
        if name not in self._record_rows:
            shape = (self._record_n, value.shape[-1])
            self._record_rows[name] = torch.full(shape, float("nan"), dtype=value.dtype)
        ours = rows_at >= 0
        self._record_rows[name][rows_at[ours]] = value[ours.to(value.device)].detach().cpu()


class _Reading:
    """Hooks that hand on the value before or after a module."""

    def __init__(self, recorder: RowRecorder, name: str, summed: bool):
        self.recorder, self.name, self.summed = recorder, name, summed

    def before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._hand_on((*args, *kwargs.values()))

    def after(self, module: Any, args: tuple[Any, ...], out: Any) -> None:
        self._hand_on(out if isinstance(out, tuple) else (out,))

    def _hand_on(self, values: tuple[Any, ...]) -> None:
        parts = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
        value = parts[0] + parts[1] if self.summed and len(parts) > 1 else parts[0]
        self.recorder._keep(self.name, value)


class _Adding:
    """A hook that adds a vector to the value after a module."""

    def __init__(self, values: list[float]):
        self.vector = torch.tensor(values)

    def __call__(self, module: Any, args: tuple[Any, ...], out: Any) -> Any:
        first = out[0] if isinstance(out, tuple) else out
        changed = first + self.vector.to(first)
        return (changed, *out[1:]) if isinstance(out, tuple) else changed


def _key(ids: list[int]) -> bytes:
    return array.array("q", ids).tobytes()
