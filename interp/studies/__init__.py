"""Small models that each demonstrate one phenomenon, trained in minutes. The names below are public.

- `grokking`                modular addition: memorised first, generalised late, with Fourier progress measures
- `grokking_phases`         its settings and curves, and the phases of every seed
- `induction_emerges`       a toy trained until induction heads form, with a one-layer model as the control
- `induction_onset`         its curves, and the step at which copying begins
- `_transitions`            sudden transitions of a curve

"""

from typing import TYPE_CHECKING

from interp.packages import lazily

if TYPE_CHECKING:
    from interp.studies.grokking import ModularConfig, describe_grokking, embedding_series, train_modular
    from interp.studies.induction_emerges import follow_induction

__getattr__, __all__ = lazily(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
