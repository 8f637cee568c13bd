"""Routes, judged on another wording: how far one edge carries an answer, and which ranking finds that edge.

    python -m benchmarks.routes smollm2-135m gemma3-270m --rows FOLDER    # measure, keep the rows, print
    python -m benchmarks.routes smollm2-135m gemma3-270m --rows FOLDER    # again: print from the rows that are kept
    python -m benchmarks.routes smollm2-135m --workspace DIR --json       # words through the lens of a workspace

Sixty pairs of words in six kinds (`routes.toml`), each in two wordings. On the first wording every ranking chooses one
edge out of the changed word: the swap with the other word's values itself; the cut, by the fall of the answer and by
KL; attention; rollout (Abnar and Zuidema 2020); contributions (Ferrando and Voita 2024); the edge into the last word,
which asks nothing. On the second wording the other word's values are swapped into it. **Movement** is the rise of the
log-probability of the other word's answer, as a share of what all edges out of the word do together. The *proven* edge
is the one that moves it most there.

Nulls, in the edge that the swap chose: 19 draws of unrelated values of equal norm; values of other words of the kind in
the same wording, with which the model gives another answer. Baseline of the rankings: a random edge out of the word.
Rankings but the swap also name the place of the proven edge among all edges of the second wording, from every word.
Words that routes carry have a null with a stated rate, 1 in 20. It is counted on random edges of untrained models,
and on edges of the model that have no effect, each in a random window of layers. Intervals are bootstraps over pairs.

A model takes 8 to 14 minutes of one core. `--svg FILE` draws the pairs.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.route_swaps import Row, measure_model

LARGE = 0.8
"""Share that counts as nearly all."""
WIDTH, PANEL, COLOURS = 760, 200, ("rgb(26, 102, 214)", "rgb(154, 160, 166)")
Summary = dict[str, Any]


def interval(values: Sequence[float], of: Callable[..., Any] = np.median) -> list[float]:
    """Return a statistic over pairs with its 95 % bootstrap interval."""
    from interp.statistics import bootstrap_interval

    if not len(values):
        return []
    found = bootstrap_interval(of, np.asarray(values, float), rng=np.random.default_rng(0))
    return [round(float(value), 3) for value in (found.estimate, found.low, found.high)]


def swap_table(rows: Sequence[Row]) -> Summary:
    """Return what one and two edges do, beside their nulls; numbers of pairs are counts."""
    one = [row["shares"][row["chosen"]["swap"]] for row in rows]
    largest = [max(row["null"]) for row in rows]
    others = [max(row["other_words"]) for row in rows if row["other_words"]]
    return {
        "pairs": len(rows),
        "edges": interval([row["edges"] for row in rows])[0],
        "one edge": interval(one),
        "nearly all": sum(share >= LARGE for share in one),
        "flips": sum(row["flips"][row["chosen"]["swap"]] for row in rows),
        "two edges": interval([row["two"] for row in rows]),
        "nearly all by two": sum(row["two"] >= LARGE for row in rows),
        "flips by two": sum(row["two_flips"] for row in rows),
        "flips by all": sum(row["whole_flips"] for row in rows),
        "all but one": interval([row["rest"] for row in rows]),
        "flips by all but one": sum(row["rest_flips"] for row in rows),
        "largest null": interval(largest),
        "above all nulls": sum(share > null for share, null in zip(one, largest, strict=True)),
        "largest of other words": interval(others),
        "pairs with other words": len(others),
        "chosen here": interval([max(row["shares"]) for row in rows]),
        "nearly all, chosen here": sum(max(row["shares"]) >= LARGE for row in rows),
        "flips, chosen here": sum(row["flips"][int(np.argmax(row["shares"]))] for row in rows),
    }


def picks(rows: Sequence[Row], ranking: str, chosen: str) -> tuple[list[float], list[float]]:
    """Return for each pair 1 where a ranking picks the proven edge, and the share (0 to 1) that its pick moves."""
    hits, kept = [], []
    for row in rows:
        proven, shares = int(np.argmax(row["shares"])), np.clip(row["shares"], 0, 1)
        numbers = row["carried"] if ranking == "random" else [row[chosen][ranking]]
        hits.append(float(np.mean([number == proven for number in numbers])))
        kept.append(float(np.mean(shares[numbers])))
    return hits, kept


def ranking_table(rows: Sequence[Row], chosen: str = "chosen") -> Summary:
    """Return for each ranking how often it picks the proven edge, the mean share of its pick, and less the swap's."""
    best, table = picks(rows, "swap", chosen), {}
    for ranking in (*rows[0]["chosen"], "random"):
        hits, kept = picks(rows, ranking, chosen)
        less = [np.subtract(mine, of_swap).tolist() for mine, of_swap in zip((hits, kept), best, strict=True)]
        table[ranking] = {
            "proven": interval(hits, np.mean), "kept": interval(kept, np.mean),
            "proven, less the swap's": interval(less[0], np.mean),
            "kept, less the swap's": interval(less[1], np.mean),
        }  # fmt: skip
    return table


def all_edges_table(rows: Sequence[Row]) -> Summary:
    """Return how often the proven edge is first, and among the first three, of all edges of the second wording."""
    table = {}
    for ranking in rows[0]["rank_of_all"]:
        ranks = [row["rank_of_all"][ranking] for row in rows]
        within = {f"first {n}": interval([rank <= n for rank in ranks], np.mean) for n in (1, 3)}
        table[ranking] = {**within, "place": interval(ranks)}
    expected = {f"first {n}": [n / row["edges_of_all"] for row in rows] for n in (1, 3)}
    chance = {name: interval([min(1, value) for value in values], np.mean) for name, values in expected.items()}
    return table | {"random": {**chance, "place": interval([(row["edges_of_all"] + 1) / 2 for row in rows])}}


def false_table(rows: Sequence[Row]) -> Summary:
    """Return how many edges are stronger than the null, and of how many words are read."""
    from interp.statistics import proportion_interval

    def rate(count: int) -> list[float]:
        found = proportion_interval(count, len(rows))
        return [count, *(round(float(value), 3) for value in (found.estimate, found.low, found.high))]

    return {
        "edges": len(rows),
        "beyond the null": rate(sum(row["strength"] > row["null"] for row in rows)),
        "with words": rate(sum(bool(row["words"]) for row in rows)),
    }


def summary(measured: Row) -> Summary:
    """Return the numbers of a model: all pairs and by kind."""
    rows = measured["rows"]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in kinds}
    many = [row for row in rows if row["edges"] > 2]
    return {
        "model": measured["model"], "dropped": measured["dropped"], "lens": measured["lens"],
        "aligned": sum(row["aligned"] for row in rows),
        "proven edge leads into the last word": sum(int(np.argmax(r["shares"])) == r["edges"] - 1 for r in rows),
        "swaps": {"all": swap_table(rows), **{kind: swap_table(each) for kind, each in by_kind.items()}},
        "rankings": ranking_table(rows), "rankings, three edges and more": ranking_table(many),
        "rankings, chosen here": ranking_table(rows, "chosen_here"),
        "rankings among all edges": all_edges_table(rows),
        "words of edges without effect": false_table(measured["idle"]),
        "words of untrained models": false_table(measured["untrained"]),
    }  # fmt: skip


def shown(value: Any) -> str:
    """Return a number, or an estimate with its interval, for a table."""
    if not isinstance(value, list):
        return f"{value:g}" if isinstance(value, int | float) else str(value)
    *count, estimate, low, high = value if value else (0, 0, 0)
    return f"{f'{count[0]:g}: ' if count else ''}{estimate:.2f} ({low:.2f} to {high:.2f})"


def print_summary(made: Summary) -> None:
    """Print the tables of a model, one line for each number."""
    for name, value in made.items():
        if not isinstance(value, dict):
            print(f"{name}: {value}")
            continue
        print(f"\n{made['model']}, {name}")
        for row, cells in value.items():
            flat = cells if isinstance(cells, dict) else {"": cells}
            if not any(isinstance(cell, dict) for cell in flat.values()):
                print(f"  {row:22}", "; ".join(f"{key} {shown(cell)}".strip() for key, cell in flat.items()))


def svg(measured: Sequence[Row]) -> str:
    """Return a picture: for each model a panel, and in it for each pair the share of one edge and its largest null."""
    grey = 'font-family="sans-serif" font-size="12" fill="rgb(95, 99, 104)"'
    parts = []
    for panel, model in enumerate(measured):
        top, rows = panel * PANEL + 30, model["rows"]
        height, step = PANEL - 60, (WIDTH - 60) / len(rows)
        y = [top + height * (1.2 - value) / 1.4 for value in (0, 0.5, 1)]
        title = f"{model['model']}: movement by one edge (blue), largest null (grey)"
        parts.append(f'<text x="50" y="{top - 12}" {grey}>{title}</text>')
        for value, at in zip(("0", "0.5", "1"), y, strict=True):
            parts.append(f'<path d="M50,{at:.1f}H{WIDTH - 10}" stroke="rgb(232, 234, 237)"/>')
            parts.append(f'<text x="44" y="{at + 4:.1f}" text-anchor="end" {grey}>{value}</text>')
        for number, row in enumerate(rows):
            x = 50 + step * (number + 0.5)
            if number == 0 or row["kind"] != rows[number - 1]["kind"]:
                parts.append(f'<text x="{x - 4:.1f}" y="{top + height + 16}" {grey}>{row["kind"]}</text>')
                parts.append(f'<path d="M{x - step / 2:.1f},{top}V{top + height}" stroke="rgb(232, 234, 237)"/>')
            shares = row["shares"][row["chosen"]["swap"]], max(row["null"])
            for share, colour in reversed(list(zip(shares, COLOURS, strict=True))):
                at = top + height * (1.2 - min(max(share, -0.2), 1.2)) / 1.4
                parts.append(f'<circle cx="{x:.1f}" cy="{at:.1f}" r="3.5" fill="{colour}"/>')
    size = f'width="{WIDTH}" height="{PANEL * len(measured)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>' + "".join(parts) + "</svg>\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=["smollm2-135m", "gemma3-270m"])
    parser.add_argument("--rows", type=Path, help="folder in which the rows of each model are kept")
    parser.add_argument("--workspace", type=Path, help="workspace with a Jacobian lens; without, the logit lens")
    parser.add_argument("--svg", type=Path, help="file of the picture")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    asked, measured = parser.parse_args(), list[Row]()
    for spec in asked.models:
        kept = asked.rows and asked.rows / f"{spec}.json"
        if kept and kept.is_file():
            measured.append(json.loads(kept.read_text(encoding="utf-8")))
            continue
        measured.append(measure_model(spec, asked.workspace))
        if kept:
            asked.rows.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(measured[-1]), encoding="utf-8")
    if asked.svg:
        asked.svg.write_text(svg(measured), encoding="utf-8")
    made = [summary(each) for each in measured]
    if asked.json:
        print(json.dumps(made, indent=1))
    else:
        for each in made:
            print_summary(each)


if __name__ == "__main__":
    main()
