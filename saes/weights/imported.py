"""Settings of an imported dictionary, and its comparison with the source (`saes.weights.read` compares). Torch-free."""

from dataclasses import dataclass

TOLERANCE = 1e-4
"""Largest error of a row, as a share of the row's largest value. Float32 weights that were folded err by about 1e-6."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """Hash and size of a file."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class ImportedSettings:
    """Origin of an imported dictionary."""

    format: str
    source: str
    """Name of its folder or file."""
    source_files: dict[str, FileEntry]
    model: str
    weight_hash: str
    hook_point: str
    hook_point_out: str
    """Of a transcoder: the hook point that it predicts; empty otherwise."""


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """Differences between a conversion and its source, as fractions of a row's largest value; medians over rows."""

    rows: int
    active: float
    """features active per probe row"""
    encode_error: float
    encode_sparse_error: float
    recons_error: float
    rows_differing: int
    """rows of the reconstruction that differ by more than the tolerance"""
    tolerance: float = TOLERANCE

    @property
    def largest_error(self) -> float:
        """The largest of the errors."""
        return max(self.encode_error, self.encode_sparse_error, self.recons_error)

    def __str__(self) -> str:
        return (
            f"on {self.rows} probe rows with {self.active:.1f} active features: features differ by "
            f"{max(self.encode_error, self.encode_sparse_error):.1e}, reconstructions by {self.recons_error:.1e}"
        )
