"""Peak memory of a process from a moment on, as Linux counts it. Standard library only: both sides use it."""

from pathlib import Path


def start_peak() -> float:
    """Forget the peak so far (importing may have been higher than training); what the process holds now, in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_mb() -> float:
    """The most that the process has held since `start_peak`."""
    return _status("VmHWM")


def _status(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
