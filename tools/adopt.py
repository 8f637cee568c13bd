"""Labels that readers wrote, given to the dictionary that ships: `python -m tools.adopt`.

The table of `tools.labels` becomes the artefact `labels/demo`, with its scores and answers; the labels that hold are
taken over by `features/demo`, beside the labels by rule; and the map of the features is coloured by them again.
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
from interp.seeds import derive_seed
from interp.workspace import Workspace
from saes.explain.adopt import adopt_labels
from saes.explain.run import mean_scores, score_answers
from saes.features.schema import SAE, SOURCES, Features
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
        head, *rows = [json.loads(line) for line in lzma.decompress(TABLE.read_bytes()).decode("utf-8").splitlines()]
        features = workspace.open(Features, SHIPPED)
        if head["features"] != features.about.content_hash:
            raise MismatchError(f"{TABLE} was made for other features than {features.folder}; label those again")
        labels = save_artefact(
            labels_of(head, rows, features, self.seed), workspace.path(Labels.kind, SHIPPED), seed=self.seed,
            parents={features.key: features.about.content_hash},
        )  # fmt: skip
        say(labels.headline())
        adopted = adopt_labels(labels, features, workspace.path(Features.kind, f"{SHIPPED}-labelled"))
        shutil.rmtree(features.folder)
        named = adopted.folder.rename(features.folder)
        manifest = named / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"name": SHIPPED}, indent=1))
        shutil.rmtree(workspace.path("atlas", f"{SHIPPED}-features"))
        atlas = Atlas(source=f"{SAE}{SHIPPED}", name=f"{SHIPPED}-features", workspace=self.workspace, seed=self.seed,
                      threads=self.threads, device=self.device)  # fmt: skip
        run_step(workspace, WorkspaceStep("Map the features", "", atlas), "1/1")
        pack(workspace, [("labels", SHIPPED), ("features", SHIPPED), ("atlas", f"{SHIPPED}-features")], self.data)


def labels_of(head: dict[str, Any], rows: list[dict[str, Any]], features: Features, seed: int) -> Labels:
    """Return the table as an artefact. Passages lie outside the recording of the features: their row is -1."""
    by_rule = features.features.query("select feature, label, label_source from t").to_pylist()
    rule = {row["feature"]: row["label"] for row in by_rule if row["label_source"] in SOURCES}
    generator = np.random.default_rng(derive_seed(seed, "label scores"))
    labels, scores, trials = [], [], []
    for row in rows:
        sides = {side: row[side] for side in ("own", "null") if side in row}
        labels.append(
            FeatureLabel(
                feature=row["feature"], label=None if row["label"] == "-" else row["label"],
                label_source=head["writer"], statistics_label=rule.get(row["feature"], ""),
                null_feature=sides["null"]["label_of"] if "null" in sides else None, unanswered=0.0,
                shown_rows=[], heldout_rows=[], given_names=[], given_scores=[],
            )
        )  # fmt: skip
        for side in sides.values():
            trials += [
                ContextJudgement(
                    feature=row["feature"], scorer="detection", label_of=side["label_of"], row=-1,
                    group="top" if truth == "1" else "random", truth=truth == "1", answer=answer == "1",
                )
                for truth, answer in zip(side["truth"], side["answers"], strict=True)
            ]  # fmt: skip
        if "own" in sides:
            own = sides["own"]
            truth, answers = ([digit == "1" for digit in own[name]] for name in ("truth", "answers"))
            score = score_answers(truth, answers, generator=generator)
            assert score is not None
            scores.append(
                LabelScore(
                    feature=row["feature"], name="detection", accuracy=own["accuracy"], low=own["low"],
                    high=own["high"], null=sides["null"]["accuracy"] if "null" in sides else None, f1=score.f1,
                    n=score.n,
                )
            )  # fmt: skip
    config = ExplainConfig(shown=SHOWN, heldout=JUDGED // 2, per_request=JUDGED)
    settings = LabelsSettings(
        features=features.name, features_hash=features.about.content_hash,
        explained=tuple(row["feature"] for row in rows),
        source=LabelRequest(provider={"model": head["writer"], "endpoint": "files of batches"}, config=config),
    )  # fmt: skip
    return Labels(
        settings=settings, labels=Table.of(FeatureLabel, labels), scores=Table.of(LabelScore, scores),
        trials=Table.of(ContextJudgement, trials), means=mean_scores(scores, generator=generator), skipped={},
        replies=ReplyCounts(requests=0, tokens_in=0, tokens_out=0, cut=0), n_read=None,
    )  # fmt: skip


if __name__ == "__main__":
    run_tool(AdoptLabels)
