"""Text sampled from SmolLM2 itself: `python -m tools.sampled`.

A language model's own text is the text it knows, it covers every topic, and it may be shipped. A document is asked for
in one of two ways, in equal parts: by its first words ("Dear", "In 1847,", `def `), or by an instruction in the chat
template ("Write a recipe. It is about: copper."). Kinds of document, temperature (0.7 to 1) and topic are drawn by a
seed; topics are WordNet's nouns, each of its 25 lexicographer files as often as the others, so that cities and persons
come as often as artefacts.

Documents are written in chunks of `CHUNK` openings, so that a command that was interrupted goes on. The file in
`text/` has 1.60 million tokens of 10,475 documents.
"""

import json
import lzma
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from interp.artifacts import atomic_file
from interp.progress import Progress
from interp.seeds import derive_seed
from tools import run_tool
from tools.sampling import Opening, SampleConfig, load_plain, sample_documents
from tools.sources import nouns
from workbench.terminal import OnDevice, Seeded, Threaded, bar, wrote

SAMPLED = Path(__file__).parent / "text" / "sampled.jsonl.xz"
CHUNK = 768
ENDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LANGUAGES = ("French", "German", "Italian", "Spanish")
OTHER_LANGUAGE = 0.4
"""Weight of a language other than English beside a kind of English text: the model knows little of them."""
TEMPERATURES = (0.7, 0.8, 0.9, 1.0)

# First words; {x} is a noun. What the model writes after them is its own.
STARTS: dict[str, tuple[str, ...]] = {
    "news": (
        "{x}: what we know so far\n\nBy", "LONDON -", "The government announced on Monday that",
        "Police said on Friday that the {x}", "Breaking news:", "Yesterday, the {x}", "According to a new report,",
        "Thousands of people gathered in", "In sports, the home team", "Shares of the company fell",
    ),
    "encyclopedia": (
        "The {x} is", "{x} (", "A {x} is a", "The history of the {x}", "{x}\n\nFrom the encyclopedia", "In 1847,",
        "During the 19th century,", "Born in 1921 in", "The city of", "The river", "The capital of", "The species",
        "The battle of", "King", "The population of", "The language is spoken in",
    ),
    "letter": (
        "Dear", "Dear Sir or Madam,", "Hi Anna,\n\n", "To whom it may concern:", "Subject: {x}\n\n", "Dear diary,",
    ),
    "story": (
        "Once upon a time", "It was a cold night in December", "She looked at the {x} and", "Chapter 1\n\n",
        "The old man with the {x}", "\"I don't know,\" said", "When I was a child,", "The door opened and", "My mother",
    ),
    "dialogue": (
        "A: Hello!\nB:", "Q: What is a {x}?\nA:", "Interviewer:", "JOHN: Where is the {x}?\nMARY:", "Customer:",
    ),
    "science": (
        "Abstract. We", "The patient was", "In this study, we", "The results show that the {x}", "Symptoms of",
        "The theory of", "Figure 1 shows", "Climate change", "The cell", "A clinical trial",
    ),
    "mathematics": (
        "Solve for x:", "Theorem 1. Let", "Proof. Suppose", "What is 12 + 7?", "The area of a circle", "Let f(x) =",
        "Problem: A train", "The sum of the first", "Exercise 3.",
    ),
    "code": (
        "def ", "import ", "#include <stdio.h>\n", "<!DOCTYPE html>\n<html>", "SELECT ", "class ", "function ",
        "public class", "# {x}.py\n", "{\n  \"name\": \"{x}\",", "#!/bin/bash\n", "body {\n", "git commit -m",
    ),
    "list": (
        "Ingredients:\n-", "1.", "Top ten {x}\n\n1.", "Shopping list:\n", "| Name | Age | City |\n|", "Monday:",
        "January:", "Countries:", "Contents\n\n", "Name:", "Date, amount, currency\n",
    ),
    "opinion": (
        "In my opinion, the {x}", "I bought this {x}", "This movie", "Five stars.", "Why I", "The best way to",
        "People often ask me", "I strongly disagree", "The band's new album", "The restaurant",
    ),
    "law and money": (
        "Section 1.", "The court", "This agreement", "The defendant", "Invoice number", "Interest rates", "Tax",
        "Under the terms of the contract,", "All rights reserved.", "The bank",
    ),
    "religion and history": (
        "In the beginning", "And the Lord", "The church", "The emperor", "The war", "The soldiers",
    ),
    "how-to": ("How to make a {x}\n\n", "Step 1:", "Preheat the oven", "To install", "First, take the {x}", "Warning:"),
    "travel and weather": ("The weather in", "Tomorrow will be", "The train to", "We arrived in", "Visit", "The hotel"),
    "French": ("Le", "La ville de", "Bonjour,", "Il était une fois", "Je suis", "Les", "Aujourd'hui,"),
    "German": ("Der", "Die Stadt", "Guten Tag,", "Es war einmal", "Ich bin", "Das", "Im Jahr 1900"),
    "Spanish": ("El", "La ciudad de", "Hola,", "Había una vez", "Yo soy", "Los", "En el año"),
    "Italian": ("Il", "La città di", "Buongiorno,", "C'era una volta", "Io sono"),
}  # fmt: skip

# Instructions; the answer is the document. {x} and {y} are nouns.
REQUESTS: dict[str, tuple[str, ...]] = {
    "news": ("Write a short news report about {x}.", "Write a sports report that mentions {x}."),
    "encyclopedia": ("Write an encyclopedia entry about {x}.", "Tell me facts about {x}.", "What is {x}?"),
    "letter": ("Write a letter to a friend about {x}.", "Write a business email about {x} and {y}."),
    "story": ("Tell a story about {x} and {y}.", "Write a fairy tale about {x}.", "Write a poem about {x}."),
    "dialogue": ("Write a dialogue about {x} between a doctor and a patient.", "Write a scene of a play about {x}."),
    "science": ("Explain {x} to a student.", "Summarise a medical study about {x}.", "Compare {x} and {y}."),
    "mathematics": ("Make up a mathematics problem about {x} and solve it.", "Explain fractions using {x}."),
    "code": ("Write a Python function about {x}.", "Write HTML for a page about {x}.", "Write SQL about {x} and {y}."),
    "list": ("List ten things about {x}.", "Write a quiz about {x}.", "Make a timetable for a week about {x}."),
    "opinion": ("Write a product review of {x}.", "Argue for and against {x}.", "Write a film review about {x}."),
    "law and money": ("Write a contract clause about {x}.", "Write a financial report that mentions {x}."),
    "religion and history": ("Write a sermon about {x}.", "Describe the history of {x}.", "Describe a war over {x}."),
    "how-to": ("Write a recipe. It is about: {x}.", "Give instructions for using {x}.", "How do I repair {x}?"),
    "travel and weather": ("Write a travel guide that mentions {x}.", "Write a weather forecast for {x}."),
    "French": ("Écris un court texte sur {x} en français.",),
    "German": ("Schreibe einen kurzen Text über {x} auf Deutsch.",),
    "Spanish": ("Escribe un texto corto sobre {x} en español.",),
}


@dataclass(frozen=True)
class Request:
    """One document to sample."""

    text: str
    """what the model reads first"""
    kind: str
    """kind of document, the label of the corpus"""
    answer: bool
    """the document is the answer to the text, not its continuation"""
    temperature: float


def requests(topics: list[list[str]], seed: int) -> Iterator[Request]:
    """Yield requests without end, the same ones for the same seed."""
    random = Random(derive_seed(seed, "sampled text"))
    while True:
        answer = random.random() < 0.5
        templates = REQUESTS if answer else STARTS
        kinds = sorted(templates)
        (kind,) = random.choices(kinds, [OTHER_LANGUAGE if kind in LANGUAGES else 1.0 for kind in kinds])
        x, y = (random.choice(random.choice(topics)) for _ in range(2))
        text = random.choice(templates[kind]).replace("{x}", x).replace("{y}", y)
        yield Request(text, kind, answer, random.choice(TEMPERATURES))


def opening(request: Request, tokenize: Callable[[str], list[int]]) -> Opening:
    """Return the tokens that a request begins with."""
    if request.answer:
        tokens = tokenize(f"<|im_start|>user\n{request.text}<|im_end|>\n<|im_start|>assistant\n")
        return Opening(tokens, request.temperature, len(tokens), request)
    return Opening(tokenize("<|endoftext|>" + request.text), request.temperature, 1, request)


@dataclass(frozen=True, kw_only=True)
class Sampled(Seeded, Threaded, OnDevice):
    """Sample documents from SmolLM2 until there are enough tokens; an interrupted command goes on."""

    tokens: int = 1_600_000
    """Tokens to sample at least."""
    work: Path = Path("workspace/sampled")
    """Folder of the finished chunks and of the downloaded word list."""
    out: Path = SAMPLED
    """The compressed file that is written at the end."""
    dtype: str = "bfloat16"
    batch_size: int = 128
    length: int = 192
    openings: int = CHUNK
    """Documents in a chunk. Another number gives other documents."""

    def run(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        made = self._chunks()
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.out) as temporary, lzma.open(temporary, "wt", encoding="utf-8", preset=9) as out:
            for path in made:
                out.write(path.read_text(encoding="utf-8"))
        wrote(self.out, f"{self.out.stat().st_size / 1e6:.1f} MB")

    def _chunks(self) -> list[Path]:
        """Return the files of all chunks; those that are missing are sampled first."""
        self.use_threads()
        topics = nouns(self.work)
        plain, tokenizer = load_plain(dtype=self.dtype, device=self.use_device())
        made: list[Path] = []
        total = 0
        with bar("sampling", "tokens") as show:
            while total < self.tokens:
                path = self.work / f"chunk-{len(made):04d}.jsonl"
                if not path.exists():
                    self._write(path, plain, tokenizer, topics, total, show)
                made.append(path)
                total += sum(row["tokens"] for row in _rows(path))
        return made

    def _write(
        self, path: Path, plain: Any, tokenizer: Any, topics: list[list[str]], before: int, show: Progress
    ) -> None:
        """Sample one chunk, seeded by its name."""
        seed = derive_seed(self.seed, path.name)

        def tokenize(text: str) -> list[int]:
            return tokenizer(text, add_special_tokens=False)["input_ids"]

        config = SampleConfig(batch_size=self.batch_size, length=self.length, seed=seed)
        openings = (opening(request, tokenize) for request in islice(requests(topics, seed), self.openings))
        ends = {tokenizer.convert_tokens_to_ids(token) for token in ENDS}
        rows: list[str] = []
        total, started = before, time.monotonic()
        for number, document in enumerate(sample_documents(plain, openings, config, ends=ends)):
            request: Request = document.opening.about
            total += len(document.tokens)
            row = {
                "text": tokenizer.decode(document.tokens, skip_special_tokens=True).strip(),
                "id": f"{path.stem}#{number}",
                "label": request.kind,
                "tokens": len(document.tokens),
            }
            rows.append(json.dumps(row, ensure_ascii=False))
            show(
                min(total, self.tokens),
                self.tokens,
                {"tokens_per_second": (total - before) / (time.monotonic() - started)},
            )
        with atomic_file(path) as temporary:
            temporary.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    run_tool(Sampled)
