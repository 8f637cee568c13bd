"""Print `-r lock/cuda.txt` where the installed torch needs libraries of NVIDIA; its build for the CPU needs none."""

from importlib.metadata import requires


def needs_cuda(requirements: list[str]) -> bool:
    """Return whether a build of torch declares libraries of NVIDIA. Markers in the lock choose the system."""
    return any(each.startswith(("nvidia-", "cuda-", "triton")) for each in requirements if "extra ==" not in each)


if __name__ == "__main__":
    print("-r lock/cuda.txt" if needs_cuda(requires("torch") or []) else "")
