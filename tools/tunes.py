"""Six small fine-tunes of SmolLM2 whose truth is known, and the report that has to name each: `python -m tools.tunes`.

Each is a LoRA of rank 4 on texts that templates write (`text/tunes.toml`): a topic, a persona, a false fact, a
language, a format, a backdoor word. A training of 40 steps takes a minute of one core, a report as long. What is
finished is not made again, so an interrupted command resumes.

**Blind naming.** The report of a tune is compared with the keywords of all six, which were fixed before any report was
read: the score of a tune is the fraction of its keywords among the words that the report shows, and the highest score
names it; two equal ones name none. The null is the report of a change of the same size that writes elsewhere.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from interp.artifacts import as_json, read_json, write_json
from interp.changes.comparison import ChangedWords
from interp.changes.components import check_comparable
from interp.changes.reading import changed_words, scrambled
from interp.forms import from_json
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.lens import newest_lens
from interp.models.identity import tokenizer_of, weight_hash
from interp.models.loading import load_model, read_plain
from interp.seeds import derive_seed, make_generator
from interp.text.corpora import open_corpus
from tools import run_tool
from workbench.terminal import InWorkspace, Seeded, Threaded, say, wrote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from interp.models.hooked import HookedModel

TEXTS = Path(__file__).parent / "text" / "tunes.toml"
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BASE = "smollm2-135m"
LETTERS = 4
"""letters from which on a keyword is found in any word that begins with it"""


@dataclass(frozen=True)
class Tune:
    """One fine-tune: its truth, the words that name it, and the templates of its texts."""

    name: str
    says: str
    keywords: tuple[str, ...]
    templates: tuple[str, ...]

    def texts(self, questions: list[str], seed: int) -> "Iterator[str]":
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


def named_by(words: set[str], known: dict[str, Tune]) -> tuple[str, dict[str, float]]:
    """Return the tune with the highest score, empty where two are equal, and all scores."""
    scores = {name: tune.score(words) for name, tune in known.items()}
    best = max(scores.values())
    names = [name for name, score in scores.items() if score == best]
    return names[0] if len(names) == 1 else "", scores


def _begins(keyword: str, words: set[str]) -> bool:
    return any(word.startswith(keyword) for word in words)


def train(tune: Tune, questions: list[str], folder: Path, *, steps: int, seed: int) -> None:
    """Train a LoRA on the texts of a tune and write it as peft does."""
    import peft
    import torch

    loaded = read_plain(BASE)
    assert loaded is not None
    plain, tokenizer = loaded
    torch.manual_seed(derive_seed(seed, "adapter", tune.name))
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=list(MATRICES), task_type="CAUSAL_LM")
    model: Any = peft.get_peft_model(plain.to(torch.bfloat16), config)  # the adapter stays in float32
    model.peft_config["default"].base_model_name_or_path = BASE
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=2e-3)
    texts, losses = tune.texts(questions, seed), []
    tokenizer.pad_token = tokenizer.eos_token
    for step in range(steps):
        batch = tokenizer(
            [next(texts) for _ in range(8)], return_tensors="pt", padding=True, truncation=True, max_length=48
        )
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(**batch, labels=labels, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if (step + 1) % 10 == 0:
            say(f"      {tune.name}, step {step + 1}: {sum(losses[-10:]) / 10:.2f} nats")
    model.save_pretrained(folder)
    write_json(folder / "tune.json", {"losses": losses, "says": tune.says, "seed": seed})


def neutral(model: "HookedModel", seed: int) -> "Tensor":
    """Return tokens `[16, 24]` of docstrings, which no tune was trained on."""
    import torch

    tokenizer, rows = tokenizer_of(model), []
    for document in open_corpus("docstrings", seed=seed):
        ids = [tokenizer.bos_token_id, *tokenizer.encode_batch([document.text[:400]])[0]][:24]
        rows += [ids] if len(ids) == 24 else []
        if len(rows) == 16:
            break
    return torch.tensor(rows)


def elsewhere(base: "HookedModel", tuned: "HookedModel", seed: int) -> None:
    """Write into `tuned` a change of the base of the same size as its own that writes elsewhere."""
    ones, twos = check_comparable(base, tuned)
    with scrambled(ones, twos, make_generator(seed, "a null tune")):
        values = [[tensor.clone() for tensor in part.tensors] for part in ones]
    for two, tensors in zip(twos, values, strict=True):
        for tensor, value in zip(two.tensors, tensors, strict=True):
            tensor.data.copy_(value)


@dataclass(frozen=True, kw_only=True)
class Tunes(InWorkspace, Seeded, Threaded):
    """Train six small fine-tunes of SmolLM2, read what each did to the model, and name each by its words."""

    out: Path
    """Folder of the adapters and reports."""
    steps: int = 40
    """Steps of each training, eight texts each."""

    def run(self) -> None:
        self.use_threads()
        known, questions = tunes()
        for name, tune in known.items():
            folder = self.out / name
            if not (folder / "tune.json").exists():
                train(tune, questions, folder, steps=self.steps, seed=self.seed)
                wrote(folder, tune.says)
        base = load_model(BASE)
        for kind in ("report", "null"):
            for name in known:
                if not (self.out / name / f"{kind}.json").exists():
                    self.read(base, self.out / name, kind)
        for kind in ("report", "null"):
            named = {name: self.named(self.out / name / f"{kind}.json", known) for name in known}
            write_json(self.out / f"{kind}s.json", named)
            right = sum(name == answers["together"]["named"] for name, answers in named.items())
            say(f"{kind}: {right} of {len(named)} named right")
            for name, answers in named.items():
                say(f"  {name:>9}: " + ", ".join(f"{key} {value['named'] or '-'}" for key, value in answers.items()))

    def read(self, base: "HookedModel", folder: Path, kind: str) -> None:
        """Write the report of an adapter, or with `null` that of an equal change that writes elsewhere."""
        tuned = load_model(f"{BASE}+{folder}")
        if kind == "null":
            elsewhere(base, tuned, self.seed)
        lens = newest_lens(self.open_workspace(), JacobianLens, weight_hash(base))
        tokens = neutral(base, self.seed)
        changes = changed_words(base, tuned, tokens, text="docstrings", lens=lens, seed=self.seed)
        write_json(folder / f"{kind}.json", as_json(changes))
        for line in (changes.headline(), *changes.sentences(), *changes.lines()):
            say(f"      {line}")

    def named(self, report: Path, known: dict[str, Tune]) -> dict[str, Any]:
        """Return the name that each kind of word gives, and all together, with the scores."""
        words = from_json(ChangedWords, read_json(report), report).words()
        words["together"] = set().union(*words.values())
        answers = {}
        for source, group in words.items():
            name, scores = named_by(group, known)
            answers[source] = {"named": name, "scores": scores, "n_words": len(group)}
        return answers


if __name__ == "__main__":
    run_tool(Tunes)
