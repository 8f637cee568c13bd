"""Names of regions: what sets them apart, in any script, from any text, and never empty."""

from itertools import pairwise

import numpy as np
import pytest

from interp.atlas._labels import (
    Tree,
    forms_of,
    forms_of_tokens,
    name_regions,
    plain,
    shown,
    shuffled_evidence,
    token_word,
    words_of,
    words_of_labels,
)
from interp.atlas.regions import find_regions, naming_of

HOSTILE = [
    "<script>alert(1)</script>",
    "שלום עולם",
    "مرحبا",
    "🦜🧪",
    "\n",
    "L" * 300,
    "%{x}",
    "",
    "\u202eabc",
    "\x00",
    "نمی‌خواهم",
]


def tree(*levels: list[int]) -> Tree:
    """A tree of hand-made levels of equal density everywhere."""
    rows = np.array(levels)
    parents = [np.full(rows[0].max() + 1, -1)]
    for outer, inner in pairwise(rows):
        parents.append(np.array([outer[inner == r][0] for r in range(inner.max() + 1)]))
    return Tree(rows, parents, np.ones(rows.shape, np.float32))


def test_what_all_regions_say_names_none():
    region = np.repeat([0, 1, 2], 40)
    labels = [f"thing {('river', 'engine', 'violin')[r]} x{i % 7}" for i, r in enumerate(region.tolist())]
    names = name_regions(tree(region.tolist()), words_of_labels(labels))[0]
    assert [name.split(", ")[0] for name in names] == ["river", "engine", "violin"]


def test_a_region_within_another_says_what_sets_it_apart_from_its_siblings():
    outer = [0] * 40 + [1] * 40
    inner = [0] * 20 + [1] * 20 + [2] * 20 + [3] * 20
    words = ["music violin", "music cello", "water river", "water lake"]
    names = name_regions(tree(outer, inner), words_of_labels([words[r] for r in inner]))
    assert names[0][0].startswith("music")
    assert names[0][1].startswith("water")
    assert names[1] == ["violin", "cello", "river", "lake"]


def test_a_region_that_is_all_of_its_parent_keeps_its_name():
    names = name_regions(tree([0] * 30 + [1] * 30, [0] * 29 + [-1] + [1] * 15 + [2] * 15), words_of_labels(
        ["one violin"] * 30 + ["two river"] * 15 + ["two lake"] * 15))  # fmt: skip
    assert names[1][0] == names[0][0]
    assert names[1][1:] == ["river", "lake"]


def test_the_outskirts_do_not_name_a_region():
    words = words_of_labels(["core"] * 10 + ["edge"] * 12 + ["other"] * 30)
    density = np.array([[1.0] * 10 + [0.2] * 12 + [1.0] * 30])
    region = np.array([[0] * 22 + [1] * 30])
    names = name_regions(Tree(region, [np.array([-1, -1])], density), words)
    assert names[0][0].split(", ") == ["core", "edge"]


def test_tokens_are_named_by_a_form_that_most_of_a_region_has():
    tokens = [" going", " making", " taking", " asking", " doing"] * 4
    tokens += [" Paris", " London", " Rome", " Oslo", " Bonn"] * 4 + [" the", "ab", " c", "old", " x1"] * 4
    region = np.repeat([0, 1, 2], 20).tolist()
    names = name_regions(tree(region), words_of_labels(tokens, tokens=True), forms_of_tokens(tokens))[0]
    assert names[0].startswith("-ing")
    assert names[1].startswith("Capitalised: ")
    assert ": " not in names[2], "no form is common to most of these"


def test_hostile_labels_stay_text_on_one_line_and_no_name_is_empty():
    rng = np.random.default_rng(0)
    region = np.repeat(np.arange(len(HOSTILE)), 60)
    positions = 10 * np.column_stack([region % 4, region // 4]) + rng.normal(0, 0.4, (len(region), 2))
    for tokens in (False, True):
        found = find_regions(positions.astype(np.float32), [HOSTILE[r] for r in region.tolist()], tokens=tokens)
        names = [r.label for r in found.table if r.level == len(found.levels) - 1]
        assert len(names) == len(HOSTILE)
        assert all(name and "\n" not in name and "\u202e" not in name and len(name) < 100 for name in names)
        assert any("script" in name for name in names)
        assert {"مرحبا", "🦜🧪", "no label"} <= set(" ".join(names).replace(":", "").split()) | set(names)
        assert any("…" in name for name in names), "a label of 300 letters is cut"


def planted_map(seed: int) -> tuple[np.ndarray, list[str]]:
    """Six clusters of 120 points; 60 % of a cluster's labels hold its word, all hold one of 40 others."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(6), 120)
    positions = 8 * np.column_stack([cluster % 3, cluster // 3]) + rng.normal(0, 0.5, (len(cluster), 2))
    own = ("river", "engine", "violin", "winter", "bread", "lawyer")
    labels = [
        f"{own[c] if rng.random() < 0.6 else 'thing'} x{'abcdefghij'[rng.integers(10)]}{'klmn'[rng.integers(4)]}"
        for c in cluster.tolist()
    ]
    return positions.astype(np.float32), labels


def test_planted_clusters_have_their_names_and_no_chance_word():
    positions, labels = planted_map(0)
    found = find_regions(positions, labels)
    coarse = [region for region in found.table if region.level == 0]
    assert {region.label for region in coarse} == {"river", "engine", "violin", "winter", "bread", "lawyer"}
    assert found.chance.named < 0.3
    assert naming_of(found).per_level[0] == 6


def test_random_positions_name_no_region():
    """The same clusters with labels that have nothing to do with them: a name on at most one of eight maps."""
    named = 0
    for seed in range(8):
        positions, labels = planted_map(seed)
        shuffled = [labels[i] for i in np.random.default_rng(100 + seed).permutation(len(labels))]
        found = find_regions(positions, shuffled, seed=seed)
        assert len(found.table) >= 6  # there are regions to name
        named += any(region.label for region in found.table)
    assert named <= 1


def test_forms_are_held_to_the_same_bound():
    rng = np.random.default_rng(3)
    region = np.repeat([0, 1, 2], 60)
    tokens = [f" {'bcdfg'[rng.integers(5)]}{'lmnpr'[rng.integers(5)]}{'ing' if r == 0 else 'ed'}" for r in region]
    kinds = {"words": words_of_labels(tokens, tokens=True), "forms": forms_of_tokens(tokens)}
    where = tree(region.tolist())
    chance = shuffled_evidence(where, kinds, seed=0)
    names = name_regions(where, **kinds, bounds=chance.bounds)[0]
    assert names[0].startswith("-ing: ")
    moved = rng.permutation(len(tokens))
    mixed = {kind: terms._replace(points=moved[terms.points].astype(np.int32)) for kind, terms in kinds.items()}
    assert name_regions(where, **mixed, bounds=chance.bounds) == [["", "", ""]]
    assert all(name_regions(where, **mixed)[0]), "without the bound each had a name"


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (" The", ["the"]),
        ('before " Of"', ["before", "of"]),
        ("x<b>y</b>", ["x", "b", "y", "b"]),
        ("", ["no label"]),
        (" ==", ["=="]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("سلام دنیا", ["سلام", "دنیا"]),
        ("今天天气", ["今天", "天天", "天气"]),
        ("naïve café", ["naïve", "café"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("\n\t", ["\\n\\t"]),
        ("1984", ["1984"]),
    ],
)
def test_words_of_labels(label: str, words: list[str]):
    assert words_of(label) == words


def test_tokens_stay_whole_and_blank_ones_differ():
    assert token_word("<0xE6>") == ["<0xe6>"]
    assert len({token_word(blank)[0] for blank in (" ", "  ", "\n", "\t", "\x00", "\u200b")}) == 6
    assert shown(" " * 40) == "␣×40"
    assert plain("a\u202eb\r\nc") == "ab c"


@pytest.mark.parametrize(
    ("token", "forms"),
    [
        ("<0xE6><0x9D>", ["bytes"]),
        (" 1984", ["digits"]),
        ("...", ["punctuation"]),
        (" +=", ["symbols"]),
        ("🦜", ["symbols"]),
        ("\x07", ["control characters"]),
        ("  ", ["white space"]),
        ("", []),
        (" NASA", ["leading space", "CAPITALS", "-sa"]),
        ("я", ["no leading space", "Cyrillic"]),
        ("漢", ["no leading space", "CJK"]),
        ("don't", ["no leading space", "lower case"]),
    ],
)
def test_forms_of_tokens(token: str, forms: list[str]):
    assert forms_of(token) == forms
