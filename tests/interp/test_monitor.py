"""Monitors: a planted signal is found; a label of the group alone leaks; untrained models give no monitor."""

import json
import random

import numpy as np
import pytest
import torch

from interp.artifacts import save_artefact
from interp.directions.examples import LabelledTexts, read_labelled
from interp.directions.monitor import BY_GROUP, BY_TEXT, CONTROL, MONITOR, UNTRAINED, Monitor, MonitorConfig
from interp.directions.monitoring import Scorer, find_probe, judge_probe, shuffled_labels, split_groups, train_monitor
from interp.directions.sides import span_means
from interp.errors import ConfigError, MismatchError, MissingError, PromptError
from interp.models.adapter import to_tokens, untrained_model
from interp.models.loading import load_model
from interp.workspace import Workspace

SEEDS = range(5)


def letters(seed: int = 0) -> LabelledTexts:
    """A group per letter: positive texts have it as a capital, the others as a small one, among digits."""
    rng = random.Random(seed)
    rows = [
        ("".join(rng.choice("0123456789") + letter for _ in range(4)), letter.isupper(), letter.lower())
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXabcdefghijklmnopqrstuvwx"
        for _ in range(3)
    ]
    texts, yes, group = zip(*rows, strict=True)
    return LabelledTexts(texts=texts, yes=yes, group=group, source="letters")


@pytest.fixture(scope="module")
def capitals():
    """A small model in which all capitals write along one direction."""
    model = load_model("small:mlp-2l", seed=0)
    with torch.no_grad():
        common = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(0))
        model.W_E[to_tokens(model, "ABCDEFGHIJKLMNOPQRSTUVWX", prepend_bos=False)[0]] += 3 * common / common.norm()
    return model


@pytest.fixture(scope="module")
def trained(capitals) -> Monitor:
    others = {"digits": ["12345"], "capitals": ["1W2W"]}
    return train_monitor(capitals, letters(), others=others)


def test_a_planted_direction_is_found_on_letters_that_it_was_not_made_of(trained: Monitor) -> None:
    assert trained.works, trained.details()
    assert trained.row(MONITOR).caught > 0.9
    assert trained.row(UNTRAINED).separation[0] < 0.5
    assert {row.name for row in trained.rows} == {MONITOR, UNTRAINED, CONTROL}
    assert sum(trained.settings.n_groups) == 24
    own, no, yes = trained.drift.rows()
    assert own.fires == trained.row(MONITOR).alarms
    assert (no.fires, yes.fires) == (0, 1)
    assert no.per_thousand < yes.per_thousand


def test_the_score_of_a_text_is_that_of_its_mean_and_survives_saving(trained, capitals, workspace_folder) -> None:
    workspace = Workspace(workspace_folder)
    save_artefact(trained, workspace.path("monitor", "capitals"))
    opened = workspace.open(Monitor, "capitals")
    assert (opened.headline(), opened.to_records()) == (trained.headline(), trained.to_records())
    assert opened.findings()[0].null <= opened.findings()[0].value
    ids = to_tokens(capitals, "1A2b3C")[0].tolist()
    watched = Scorer(capitals, opened).watch(ids)
    at = opened.settings.hook_point
    mean = span_means(capitals, [(ids, 1)], [at])[at][0]
    assert watched.score == pytest.approx(mean @ trained.weights + trained.bias, abs=1e-5)
    assert watched.scores[0] is None
    assert watched.scores[2] > max(watched.scores[1], watched.scores[4])
    with pytest.raises(MismatchError, match="make the monitor again"):
        Scorer(untrained_model(capitals, 3), opened)
    with pytest.raises(PromptError, match="first is not read"):
        Scorer(capitals, opened).watch(ids[:1])


@pytest.mark.parametrize("seed", SEEDS)
def test_an_untrained_model_gives_no_monitor(capitals, seed: int) -> None:
    found = train_monitor(untrained_model(capitals, 10 + seed), letters(seed), MonitorConfig(seed=seed))
    assert not found.works, found.details()


def rows(seed: int, n_groups: int = 40, d: int = 48):
    """Means of five texts of each group: the group and noise, and labels at random."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), 5)
    x = 2 * rng.standard_normal((n_groups, d))[group] + rng.standard_normal((5 * n_groups, d))
    return x, group, rng.random(5 * n_groups) < 0.5


def judged(x: np.ndarray, blank: np.ndarray, yes: np.ndarray, group: np.ndarray, seed: int):
    at, config, parts = "blocks.0.hook_resid_post", MonitorConfig(seed=seed), split_groups(group, yes, seed)
    probe = find_probe({at: x}, yes, parts, config)
    rates, compared = judge_probe(probe, {at: x}, [{at: blank}], yes, group, parts, config)
    return rates, compared, {(row.name, row.split): row.separation[0] for row in rates}


def test_a_label_of_the_group_alone_is_chance_on_other_groups_and_leaks_by_text() -> None:
    by_group, by_text, control = [], [], []
    for seed in SEEDS:
        x, group, _ = rows(seed)
        rates, _, gaps = judged(x, x, group % 2 == 0, group, seed)
        assert rates[0].separation[1] < 0.1
        by_group.append(gaps[MONITOR, BY_GROUP])
        by_text.append(gaps[MONITOR, BY_TEXT])
        control.append(gaps[CONTROL, BY_TEXT])
    assert abs(np.mean(by_group)) < 0.2
    assert np.mean(by_text) > 0.4
    assert np.mean(control) > 0.3, "control labels on the leaky split show that groups are memorised"


@pytest.mark.parametrize("seed", SEEDS)
def test_few_groups_are_judged_whatever_their_control_labels_are(seed: int) -> None:
    group = np.repeat(np.arange(8), 4)
    x = np.random.default_rng(seed).standard_normal((32, 12))
    for yes in (group < 4, (group < 4) & (np.arange(32) % 4 == 0)):
        rates, compared, gaps = judged(x, x, yes, group, seed)
        assert (MONITOR, BY_TEXT) in gaps
        assert compared.value == rates[0].separation[0]


def test_shuffled_labels_and_a_planted_coordinate_differ() -> None:
    for seed in SEEDS:
        x, group, yes = rows(seed, 80)
        rates, _, _ = judged(x, x, yes, group, seed)
        assert rates[0].separation[1] < 0.1
        planted = x.copy()
        planted[:, :8] += 4 * yes[:, None]
        rates, compared, _ = judged(planted, x, yes, group, seed)
        assert compared.p == 1 / 20
        assert rates[0].separation[1] > rates[1].separation[2]


def test_shuffling_keeps_the_labels_of_a_part_and_of_groups() -> None:
    group = np.repeat(np.arange(24), 4)
    yes = np.where(group < 16, group % 2 == 0, np.arange(96) % 2 == 0)
    parts = split_groups(group, yes, seed=0)
    drawn = shuffled_labels(yes, group, parts, np.random.default_rng(0))
    assert (drawn != yes).any()
    for part in (parts.train, parts.choose, parts.test):
        assert drawn[part].sum() == yes[part].sum()
        assert 0 < len(np.unique(group[part])) < 24
    for name in range(24):
        assert drawn[group == name].mean() in ((0, 1) if name < 16 else (0.5,))


def test_examples_that_no_split_can_hold_out_are_refused(tmp_path) -> None:
    file = tmp_path / "examples.jsonl"

    def write(*lines: object) -> None:
        file.write_text("\n".join(json.dumps(line) for line in lines))

    def line(label: object, group: object = None, text: str = "") -> dict[str, object]:
        return {"text": text or f"{label} {group}", "label": label, "group": group}

    for lines, words in (
        ([line(True, n) for n in range(12)], "0 groups hold a text labelled false"),
        ([line(n > 3, "all" if n > 3 else n) for n in range(12)], "5 groups; 8 are needed"),
        ([line(n > 8, "all" if n > 8 else n) for n in range(12)], "1 groups hold a text labelled true"),
        ([line(n % 2 == 0, n if n else None) for n in range(12)], "line 1 is no example"),
        ([line("yes", n) for n in range(12)], "line 1 is no example"),
        ([line(True, 1, " ")], "line 1 is no example"),
    ):
        write(*lines)
        with pytest.raises(ConfigError, match=words):
            read_labelled(file)
    write(*(line(n % 2 == 0, n) for n in range(16)))
    assert read_labelled(file).group[:2] == ("0", "1")
    with pytest.raises(MissingError, match="no file at"):
        read_labelled(file.with_name("none.jsonl"))
