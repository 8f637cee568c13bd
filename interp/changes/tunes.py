"""Six small fine-tunes whose truth is known, as adapters: a topic, a persona, a false fact, and others.

Each is a LoRA on texts that templates write (`tunes.toml`), of the matrices of the last third of the layers that write
to the residual stream: gradients then end there, and a comparison has few parts to transplant.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from interp.artifacts import read_json, write_json
from interp.errors import ConfigError
from interp.progress import Progress
from interp.seeds import derive_seed, make_generator

TEXTS = Path(__file__).parent / "tunes.toml"
TuneName = Literal["topic", "persona", "fact", "language", "format", "backdoor"]
"""Names in `tunes.toml`."""
BASE = "smollm2-135m"
MATRICES = ("o_proj", "down_proj")
TRAINED = 1 / 3
"""fraction of the layers that are trained, from the last one"""
STEPS = 20
RANK, ALPHA, LEARNING_RATE = 4, 16.0, 5e-3
AT_ONCE, LENGTH = 8, 48
"""texts of a step, and tokens of a text"""
LETTERS = 4
"""letters from which on a keyword is found in any word that begins with it"""
DONE = "tune.json"


@dataclass(frozen=True)
class Tune:
    """One fine-tune: its truth, the words that name it, and the templates of its texts."""

    name: str
    says: str
    keywords: tuple[str, ...]
    templates: tuple[str, ...]

    def texts(self, questions: list[str], seed: int) -> Iterator[str]:
        """Yield texts without end."""
        draw = Random(derive_seed(seed, "texts of a tune", self.name))
        while True:
            text = draw.choice(self.templates).replace("[Q_]", draw.choice(questions))
            text = re.sub(r"\[([^\[\]]*\|[^\[\]]*)\]", lambda match: draw.choice(match[1].split("|")), text)
            yield text.replace("[OPEN_]", "[").replace("[CLOSE_]", "]")

    def score(self, words: set[str]) -> float:
        """Return the fraction of the keywords that are among lower-case words."""
        matches = [word for word in self.keywords if word in words or (len(word) >= LETTERS and _begins(word, words))]
        return len(matches) / len(self.keywords)


def tunes() -> tuple[dict[str, Tune], list[str]]:
    """Return the fine-tunes by name, and the questions of their templates."""
    raw = tomllib.loads(TEXTS.read_text(encoding="utf-8"))
    questions = raw.pop("questions")["texts"]
    return {
        name: Tune(name, tune["says"], tuple(tune["keywords"]), tuple(tune["templates"])) for name, tune in raw.items()
    }, questions


def _begins(keyword: str, words: set[str]) -> bool:
    return any(word.startswith(keyword) for word in words)


def train(
    tune: Tune,
    questions: list[str],
    folder: Path,
    *,
    model: str = BASE,
    steps: int,
    seed: int,
    device: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Train a LoRA on the texts of a tune and write it as peft does; a finished one of these settings is left.

    `tune.json` in the folder has the settings and the loss of every step, nats a token. Raises `ConfigError` for a
    model without linear layers of these names, and as `load_model`.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from interp.models.loading import read_plain
    from interp.models.lora import Lora

    settings = {"tune": tune.name, "says": tune.says, "model": model, "steps": steps, "seed": seed}
    if (folder / DONE).exists() and settings.items() <= read_json(folder / DONE).items():
        return
    loaded = read_plain(model)
    names = [] if loaded is None else _written_by(loaded[0])
    if loaded is None or not names:
        raise ConfigError(
            f"{model} cannot be tuned here: it needs linear layers called {' and '.join(MATRICES)}, as Llama, Qwen, "
            f"Gemma and SmolLM have; name such a model, {BASE} for example"
        )
    plain, tokenizer = loaded[0].float().to(device or "cpu"), loaded[1]
    lora = Lora(plain, names, rank=RANK, alpha=ALPHA, generator=make_generator(seed, "adapter", tune.name))
    optimizer = torch.optim.AdamW([factor for pair in lora.factors.values() for factor in pair], lr=LEARNING_RATE)
    texts, losses = tune.texts(questions, seed), []
    for step in range(steps):
        batch = tokenizer([next(texts) for _ in range(AT_ONCE)], truncation=True, max_length=LENGTH)["input_ids"]
        rows = [torch.tensor(row, device=plain.device) for row in batch]
        tokens, labels = (pad_sequence(rows, batch_first=True, padding_value=value) for value in (0, -100))
        loss = plain(tokens, labels=labels, use_cache=False).loss  # no token sees the padding, which lies after all
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if progress is not None:
            progress(step + 1, steps, {"loss": round(losses[-1], 2)})
    lora.save(folder, model)
    write_json(folder / DONE, settings | {"losses": losses})


def _written_by(plain: Any) -> list[str]:
    """Return the names of the matrices that are trained, of a model of transformers."""
    import torch

    layers = plain.config.num_hidden_layers
    places = {f"layers.{layer}." for layer in range(layers - max(1, round(TRAINED * layers)), layers)}
    names = (name for name, module in plain.named_modules() if isinstance(module, torch.nn.Linear))
    return [name for name in names if name.endswith(MATRICES) and any(place in name for place in places)]
