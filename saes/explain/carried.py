"""Labels that travel: a written label is carried to the feature of another dictionary that fires on the same words.

    labels = carry_labels(mine, demo, DictionaryIn(model, sae, l0), DictionaryIn(other, demo_sae, l0), text)

`saes.evaluation.match_by_word` pairs the features and judges each pair on the other half of the documents, both ways;
the agreement is the score of the label. No language model is asked, and no reader.

**Nulls**: the label of another pair (its score is stored beside each), documents shuffled, an untrained dictionary and
neurons in place of the own one: how many labels would hold of each is stored with the labels.
"""

from typing import Any

import numpy as np

from interp.artifacts import Table
from interp.errors import ConfigError
from interp.progress import Progress
from interp.seeds import derive_seed
from saes.evaluation.by_word import WordText
from saes.evaluation.counterparts import ONE_WORD
from saes.evaluation.match_by_word import (
    DictionaryIn,
    MatchedDictionaries,
    main_forms,
    match_dictionaries,
)
from saes.explain.run import mean_scores
from saes.features.schema import WRITTEN, Features
from saes.features.written_labels import (
    HOLDS,
    CarriedLabels,
    ContextJudgement,
    FeatureLabel,
    Labels,
    LabelScore,
    LabelsSettings,
)


def written_labels(giver: Features) -> dict[int, dict[str, Any]]:
    """Return the written labels of some features, with their sources. Raises `ConfigError` where there are none."""
    sql = "select feature, label, label_source from t where label_kind = ?"
    written = {row["feature"]: row for row in giver.features.query(sql, WRITTEN).to_pylist()}
    if not written:
        raise ConfigError(
            f"{giver.name} has no written labels; `workbench explain {giver.name} --into NAME` asks for some"
        )
    return written


def carry_labels(
    target: Features, giver: Features, own: DictionaryIn, other: DictionaryIn, text: WordText, *,
    seed: int = 0, progress: Progress | None = None,
) -> Labels:  # fmt: skip
    """Return the written labels of `giver` for the features of `target` that fire on the same words, with their scores.

    `own` and `other` are their dictionaries. Raises `ConfigError` where `giver` has no written labels.
    """
    written = written_labels(giver)
    kept = np.array(sorted(written))
    matched = match_dictionaries(own, other, text.documents, wanted=kept, seed=seed, progress=progress)
    return _labels(target, giver, written, kept, matched, text, seed)


def _labels(
    target: Features, giver: Features, written: dict[int, dict[str, Any]], kept: np.ndarray,
    matched: MatchedDictionaries, text: WordText, seed: int,
) -> Labels:  # fmt: skip
    rule, pairs = target.labels_by_rule(), matched.pairs
    judged, nulls = sorted(pairs.agreements), matched.nulls.items()
    labels, scores = [], []
    for feature in judged:
        counterpart = written[int(kept[pairs.counterpart[feature]])]
        labels.append(
            FeatureLabel(
                feature=feature, label=counterpart["label"],
                label_source=f"{counterpart['label_source']}, carried from {giver.name}",
                statistics_label=rule.get(feature, ""), unanswered=0.0,
                given_names=[f"correlation with #{counterpart['feature']}"],
                given_scores=[float(pairs.correlation[feature])],
            )
        )  # fmt: skip
        score, null = pairs.agreements[feature], pairs.null.get(feature)
        accuracy, low, high = map(float, score.accuracy)
        scores.append(
            LabelScore(
                feature=feature, accuracy=accuracy, low=low, high=high,
                null=None if null is None else float(null.accuracy.estimate), n=score.n,
            )
        )  # fmt: skip
    hold = [feature for feature in judged if pairs.agreements[feature].accuracy.estimate >= HOLDS]
    source = CarriedLabels(
        features=giver.name, features_hash=giver.about.content_hash, corpus=text.corpus, n_words=text.n_words,
        nulls={name: (null.n_hold, len(null.agreements)) for name, null in nulls},
        n_wide=sum(main_forms(matched.first, feature)[1] <= ONE_WORD for feature in hold),
    )  # fmt: skip
    settings = LabelsSettings(
        features=target.name, features_hash=target.about.content_hash, explained=tuple(judged), source=source
    )
    return Labels(
        settings=settings, labels=Table.of(FeatureLabel, labels), scores=Table.of(LabelScore, scores),
        trials=Table.of(ContextJudgement, []),
        means=mean_scores(scores, generator=np.random.default_rng(derive_seed(seed, "bootstrap"))),
    )  # fmt: skip
