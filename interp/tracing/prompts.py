"""Prompts with known answers, and those that a model answers: what a first attribution graph explains."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from interp.models.hooked import HookedModel

LEAST = 0.1
"""Least probability of an answer that a graph explains."""
PROMPTS: dict[str, tuple[str, str, str]] = {
    "capital-of-France": ("The capital of France is", " Paris", " Rome"),
    "capital-of-Japan": ("Japan's largest city and capital is called", " Tokyo", " Paris"),
    "capital-of-Egypt": ("We flew to Egypt and landed in its capital,", " Cairo", " London"),
    "opposite-of-day": ("The opposite of day is", " night", " day"),
    "opposite-of-hot": ("It was not hot at all; on the contrary, it was very", " cold", " hot"),
    "opposite-of-small": ("An elephant is not small, it is", " large", " small"),
    "after-Wednesday": ("Monday, Tuesday, Wednesday,", " Thursday", " Monday"),
    "after-March": ("January, February, March,", " April", " May"),
    "after-four": ("one, two, three, four,", " five", " one"),
    "after-D": ("The letters in order are A, B, C, D,", " E", " A"),
    "repeated-name": ("Mr. Dalrympov was late. Everyone waited for Mr. Dal", "ry", "e"),
    "indirect-object": ("When John and Mary went to the store, John gave a bottle of milk to", " Mary", " John"),
    "another-indirect-object": ("After Anna and Peter had dinner, Peter handed the bill to", " Anna", " Peter"),
    "language-of-Brazil": ("In Brazil, people mostly speak", " Portuguese", " French"),
    "language-of-Berlin": ("She grew up in Berlin, so her first language is", " German", " English"),
    "sound-of-dogs": ("The dog opened its mouth and began to", " bark", " sing"),
    "plural-verb": ("The keys to the old cabinet", " are", " is"),
    "singular-verb": ("The key to the old cabinets", " is", " are"),
    "her": ("The queen looked at the mirror and admired", " her", " his"),
    "his": ("The king raised", " his", " her"),
    "where-doctors-work": ("The nurse and the doctor both work at the", " hospital", " school"),
    "where-teachers-work": ("The teacher walked into the", " classroom", " hospital"),
    "bread": ("Fresh bread is baked in an", " oven", " office"),
    "frozen-water": ("When water freezes it turns into", " ice", " gold"),
    "colour-of-sky": ("On a clear day the sky is", " blue", " green"),
    "colour-of-grass": ("The colour of fresh grass is", " green", " blue"),
    "code-return": ("def add(a, b):\n    return a +", " b", " a"),
    "code-import": ("import numpy as", " np", " pd"),
    "closing-bracket": ('print("hello"', ")", "]"),
    "past-tense": ("Yesterday she went to the shop and", " bought", " buy"),
    "future-tense": ("Tomorrow I will", " be", " was"),
    "comparative": ("Gold is heavier", " than", " of"),
    "either-or": ("You can either stay here", " or", " and"),
    "between-and": ("The war between France", " and", " or"),
    "not-only": ("He was not only rich", " but", " and"),
    "composers": ("Mozart and Beethoven were famous", " compos", " football"),
    "Shakespeare": ("The play Hamlet was written by William", " Shakespeare", " Smith"),
    "orbit-of-the-Moon": ("The Earth orbits the Sun, and the Moon orbits the", " Earth", " Sun"),
    "blood": ("Blood is pumped through the body by the", " heart", " lungs"),
    "bees": ("Bees collect nectar from flowers to make", " honey", " milk"),
    "jury": ("The jury found the defendant", " guilty", " happy"),
    "Sunday": ("Every Sunday the family went to", " church", " school"),
    "once-upon-a-time": ("Once upon a", " time", " day"),
    "thanks": ("Thank you very", " much", " many"),
    "goal": ("The team scored a goal in the last minute and won the", " game", " war"),
    "photosynthesis": ("Plants turn sunlight into energy by a process called", " photos", " evolution"),
    "Spanish-word": ('The Spanish word for house is "', "casa", "maison"),
    "French-sentence": ("Je suis allé à la plage avec mes", " am", " friends"),
}
"""Prompt, target and contrast, by name. They were written before any was traced."""
FACTS = ("capital", "opposite", "after", "language", "colour", "frozen", "bees", "orbit", "blood", "where", "sound")
"""First words of the names of prompts whose answer takes knowledge, not grammar or a fixed phrase."""


class AnsweredPrompt(NamedTuple):
    """A prompt that a model answers."""

    name: str
    probability: float
    """of the answer, as the next token"""
    prompt: str
    target: str
    contrast: str


def answered_prompts(model: "HookedModel", names: Iterable[str] = PROMPTS) -> list[AnsweredPrompt]:
    """Return the prompts whose target has at least the probability `LEAST` and more than the contrast, likeliest first.

    Target and contrast are one token each, so a model that reads bytes answers none.
    """
    from interp.models.generation import NextToken, prompt_tokens
    from interp.models.identity import tokenizer_of

    answers = []
    for name in names:
        prompt, *words = PROMPTS[name]
        ids = tokenizer_of(model).encode_batch(words)
        if all(len(tokens) == 1 for tokens in ids):
            after = NextToken(model)(prompt_tokens(model, prompt))[0].softmax(-1)
            target, contrast = (float(after[tokens[0]]) for tokens in ids)
            if target >= LEAST and target > contrast:
                answers.append(AnsweredPrompt(name, target, *PROMPTS[name]))
    return sorted(answers, key=lambda answer: -answer.probability)


def answered_facts(model: "HookedModel", n: int) -> tuple[AnsweredPrompt, ...]:
    """Return `n` prompts whose answer takes knowledge, the likeliest answer first, one of each of `FACTS`; or fewer."""
    best: dict[str, AnsweredPrompt] = {}
    for answer in answered_prompts(model, [name for name in PROMPTS if _kind(name) in FACTS]):
        best.setdefault(_kind(answer.name), answer)
    return tuple(best.values())[:n]


def _kind(name: str) -> str:
    return name.partition("-")[0]
