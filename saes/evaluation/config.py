"""Settings of sparse probing and of feature absorption. Torch-free: the command line inherits them."""

from dataclasses import dataclass

from interp.errors import ConfigError

MIN_ROWS = 20
"""Smallest number of rows of each answer of a probing task, in training and in test rows."""


@dataclass(frozen=True, kw_only=True)
class ProbingConfig:
    """Settings of sparse probing."""

    ks: tuple[int, ...] = (1, 2, 5)
    """Numbers of latents that a probe reads."""
    n_train: int = 8192
    """Tokens of training documents that a probe is fitted to, drawn anew for every seed."""
    n_test: int = 8192
    """Tokens of held-out documents that probes are tested on."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds over which scores are averaged."""

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1 or min(self.n_train, self.n_test) < 2 * MIN_ROWS or not self.seeds:
            raise ConfigError(
                f"probing needs k of 1 or more, at least {2 * MIN_ROWS} training and test tokens and a seed, got ks "
                f"{self.ks}, n_train {self.n_train}, n_test {self.n_test} and seeds {self.seeds}"
            )


@dataclass(frozen=True, kw_only=True)
class AbsorptionConfig:
    """Settings of the measurement of feature absorption."""

    n_rows: int = 12_000
    """Largest number of words whose first letter is asked for."""
    per_word: int = 4
    """Largest number of occurrences of each word type among them."""
    test_share: float = 0.4
    """Share of word types that the probes do not see, drawn anew for every seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the splits over which scores are averaged; the first also draws the words."""

    def __post_init__(self) -> None:
        if min(self.n_rows, self.per_word) < 1 or not 0 < self.test_share < 1 or not self.seeds:
            raise ConfigError(
                "absorption needs n_rows and per_word of at least 1, test_share between 0 and 1 and a seed, got "
                f"{self.n_rows}, {self.per_word}, {self.test_share} and {self.seeds}"
            )
