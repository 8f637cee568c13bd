"""Results and tables in, `plotly.graph_objects.Figure` out: pure functions, one theme, no Dash; notebooks use them too.

    from dashboard.figures import plot

    plot(score_heads(model), kind="previous_token", theme="dark")

The names below are public.

- `results`      the figure of a result, by its class (`plot`)
- `theme`        colours of the light and the dark scheme, axes, text
- `heads`        scores of every head, attention patterns, lenses
- `attribution`  shares of a logit or of an attention score, effects of patches
- `circuits`     a circuit, ablations, composition, faithfulness over size, attribution graphs, edges by heads
- `_claims`      variations of a claim, with their nulls and the worst of them
- `circuit_tests` what an adversary leaves of a circuit
- `geometry`     words on a plane and along a direction, layers, spectra, steering and rotation
- `changes`      what fine-tuning moved: weights, residual stream, transplants, latents
- `saes`         health of a training run, activations of a feature, a feature with the nulls of its proof
- `scaling`      loss over size, FVU over L0, density of features, cosines of pairs
- `studies`      training curves, grokking
"""

from typing import TYPE_CHECKING

from interp.packages import lazily

if TYPE_CHECKING:
    from dashboard.figures.attribution import share_bars
    from dashboard.figures.circuits import ablation_bars, composition_map, faithfulness_curve
    from dashboard.figures.heads import attention_pattern, head_scores
    from dashboard.figures.results import plot
    from dashboard.figures.saes import HealthRun, activation_histogram, health_figure
    from dashboard.figures.studies import frequency_shares, training_curves
    from dashboard.figures.theme import Theme, styled
    from dashboard.figures.theme import theme as colours_of

__getattr__, __all__ = lazily(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
