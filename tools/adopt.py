"""Labels that readers wrote, given to the dictionary that ships: `python -m tools.adopt`.

The table of `tools.labels` becomes the artefact `labels/demo`, with its scores and answers; the labels that hold are
taken over by `features/demo`, beside the labels by rule. Where a label by rule says little and the words promoted
belong together, they become the title (`saes/features/titles.py`). Then the map of the features is coloured again.
Features that have taken labels over already only get the titles.
"""

import json
import lzma
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interp.artifacts import Table, save_artefact
from interp.errors import MismatchError, MissingError
from interp.lenses.vocabulary import vocabulary_of
from interp.models.loading import load_model
from interp.seeds import derive_seed
from interp.workspace import Workspace
from saes.explain.adopt import adopt_labels, replace_labels
from saes.explain.run import mean_scores
from saes.features.meaning import lens_for, said_tokens
from saes.features.schema import NO_LABEL, SAID, SAYS, Features
from saes.features.titles import N_WORDS, belonging_together, says_little, title_of
from saes.features.written_labels import (
    ContextJudgement,
    ExplainConfig,
    FeatureLabel,
    LabelRequest,
    Labels,
    LabelScore,
    LabelsSettings,
    ReplyCounts,
)
from saes.weights.folder import load_sae
from tools import run_tool
from tools.build import pack
from tools.labels import JUDGED, SHOWN, TABLE
from workbench.demo import DATA, SHIPPED, unpack
from workbench.steps import WorkspaceStep, run_step
from workbench.terminal import InWorkspace, OnDevice, Seeded, Threaded, say
from workbench.verbs.atlas import Atlas


@dataclass(frozen=True, kw_only=True)
class AdoptLabels(InWorkspace, Seeded, Threaded, OnDevice):
    """Give the labels that readers wrote to the dictionary that ships."""

    data: Path = DATA
    """Folder that the finished artefacts are copied into."""

    def run(self) -> None:
        """Make the three artefacts in an empty workspace, and copy them into the package."""
        if not TABLE.exists():
            raise MissingError(f"no labels at {TABLE}; `python -m tools.labels` collects them")
        workspace = Workspace(self.workspace, create=True)
        unpack(workspace, self.data)
        features = workspace.open(Features, SHIPPED)
        if features.settings.labels is None:
            features = self._adopted(workspace, features)
        model, lens = load_model(features.settings.model), lens_for(workspace, features)
        if lens is None:
            raise MissingError(f"no Jacobian lens for {features.folder}; `workbench demo` unpacks one")
        said = said_tokens(load_sae(workspace.path("sae", SHIPPED)), lens, model, N_WORDS)
        titles = new_titles(features, belonging_together(*said, vocabulary_of(model)))
        say(f"{len(titles):,} titles from promoted words")
        _in_place_of(features, replace_labels(features, titles, workspace.path(Features.kind, f"{SHIPPED}-titled"),
                                              features.settings, {}))  # fmt: skip
        shutil.rmtree(workspace.path("atlas", f"{SHIPPED}-features"))
        atlas = Atlas(source=f"features:{SHIPPED}", name=f"{SHIPPED}-features", workspace=self.workspace,
                      seed=self.seed, threads=self.threads, device=self.device)  # fmt: skip
        run_step(workspace, WorkspaceStep("Map the features", "", atlas), "1/1")
        pack(workspace, [("labels", SHIPPED), ("features", SHIPPED), ("atlas", f"{SHIPPED}-features")], self.data)

    def _adopted(self, workspace: Workspace, features: Features) -> Features:
        """Return the features with the labels that readers wrote."""
        head, *rows = [json.loads(line) for line in lzma.decompress(TABLE.read_bytes()).decode("utf-8").splitlines()]
        if head["features"] != features.about.content_hash:
            raise MismatchError(f"{TABLE} was made for other features than {features.folder}; label those again")
        labels = save_artefact(
            labels_of(head, rows, features, self.seed), workspace.path(Labels.kind, SHIPPED), seed=self.seed,
            parents={features.key: features.about.content_hash},
        )  # fmt: skip
        say(labels.headline())
        adopted = adopt_labels(labels, features, workspace.path(Features.kind, f"{SHIPPED}-labelled"))
        return _in_place_of(features, adopted)


def _in_place_of(features: Features, other: Features) -> Features:
    """Return other features under the name of some, which are removed."""
    shutil.rmtree(features.folder)
    folder = other.folder.rename(features.folder)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"name": features.name}, indent=1))
    return Workspace(folder.parent.parent).open(Features, features.name)


def new_titles(features: Features, words: dict[int, tuple[str, ...]]) -> dict[int, dict[str, Any]]:
    """Return the columns of the features whose label says little, and whose words belong together."""
    sql = "select feature, label_kind, label_names, label_share, label_heldout from t"
    return {
        row["feature"]: {
            "label": title_of(said), "label_source": SAID, "label_kind": SAYS, "label_names": list(said),
            "label_heldout": row["label_heldout"] if row["label_kind"] == NO_LABEL else None,
        }
        for row in features.features.query(sql).to_pylist()
        if says_little(row["label_kind"], row["label_names"], row["label_share"])
        and (said := words.get(row["feature"])) is not None
    }  # fmt: skip


def labels_of(head: dict[str, Any], rows: list[dict[str, Any]], features: Features, seed: int) -> Labels:
    """Return the table as an artefact. Passages lie outside the recording of the features: their row is -1."""
    rule = features.labels_by_rule()
    generator = np.random.default_rng(derive_seed(seed, "label scores"))
    labels, scores, trials = [], [], []
    for row in rows:
        sides = {side: row[side] for side in ("own", "null") if side in row}
        labels.append(
            FeatureLabel(
                feature=row["feature"], label=None if row["label"] == "-" else row["label"],
                label_source=head["writer"], statistics_label=rule.get(row["feature"], ""),
                null_feature=sides["null"]["label_of"] if "null" in sides else None, unanswered=0.0,
            )
        )  # fmt: skip
        for side in sides.values():
            trials += [
                ContextJudgement(
                    feature=row["feature"], label_of=side["label_of"], row=-1,
                    group="top" if truth == "1" else "random", truth=truth == "1", answer=answer == "1",
                )
                for truth, answer in zip(side["truth"], side["answers"], strict=True)
            ]  # fmt: skip
        if "own" in sides:
            own = sides["own"]
            scores.append(
                LabelScore(
                    feature=row["feature"], accuracy=own["accuracy"], low=own["low"], high=own["high"],
                    null=sides["null"]["accuracy"] if "null" in sides else None, n=len(own["truth"]),
                )
            )  # fmt: skip
    config = ExplainConfig(shown=SHOWN, heldout=JUDGED // 2, per_request=JUDGED)
    settings = LabelsSettings(
        features=features.name, features_hash=features.about.content_hash,
        explained=tuple(row["feature"] for row in rows),
        source=LabelRequest(endpoint="files of batches", model=head["writer"], config=config),
    )  # fmt: skip
    return Labels(
        settings=settings, labels=Table.of(FeatureLabel, labels), scores=Table.of(LabelScore, scores),
        trials=Table.of(ContextJudgement, trials), means=mean_scores(scores, generator=generator),
        replies=ReplyCounts(requests=0, tokens_in=0, tokens_out=0, cut=0),
    )  # fmt: skip


if __name__ == "__main__":
    run_tool(AdoptLabels)
