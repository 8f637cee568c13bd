"""Six small fine-tunes of SmolLM2 whose truth is known, and the report that has to name each: `python -m tools.tunes`.

They are those of `interp.changes.tunes`: a topic, a persona, a false fact, a language, a format, a backdoor word. What
is finished is not made again, so an interrupted command resumes.

**Blind naming.** The report of a tune is compared with the keywords of all six, which were fixed before any report was
read: the score of a tune is the fraction of its keywords among the words that the report shows, and the highest score
names it; two equal ones name none. The null is the report of a change of the same size that writes elsewhere.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.artifacts import as_json, read_json, write_json
from interp.changes.comparison import ChangedWords
from interp.changes.components import check_comparable
from interp.changes.reading import changed_words, scrambled
from interp.changes.tunes import BASE, STEPS, Tune, train, tunes
from interp.forms import from_json
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.lens import newest_lens
from interp.models.identity import tokenizer_of, weight_hash
from interp.models.loading import load_model
from interp.seeds import make_generator
from interp.text.corpora import open_corpus
from tools import run_tool
from workbench.terminal import InWorkspace, Seeded, Threaded, say, wrote

if TYPE_CHECKING:
    from torch import Tensor

    from interp.models.hooked import HookedModel


def named_by(words: set[str], known: dict[str, Tune]) -> tuple[str, dict[str, float]]:
    """Return the tune with the highest score, empty where two are equal, and all scores."""
    scores = {name: tune.score(words) for name, tune in known.items()}
    best = max(scores.values())
    names = [name for name, score in scores.items() if score == best]
    return names[0] if len(names) == 1 else "", scores


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
    steps: int = STEPS
    """Steps of each training, eight texts each."""

    def run(self) -> None:
        self.use_threads()
        known, questions = tunes()
        for name, tune in known.items():
            train(tune, questions, self.out / name, steps=self.steps, seed=self.seed)
            wrote(self.out / name, tune.says)
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
