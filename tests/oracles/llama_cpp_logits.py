"""Does llama.cpp steer with our control vectors as we do? Run where `pip install llama-cpp-python==0.3.36 gguf` was.

    python tests/oracles/llama_cpp_logits.py OUT      compare with what tests/oracles/steered_logits.py wrote to OUT

The *change* is the steered logits less the unsteered ones, every token's mean removed, as a softmax does not see it.
llama.cpp runs twice: with the packaged file, whose matrix products round activations to 8 bits, and with the same
weights written as float32, where both tools must compute the same. The vector one block off is the null.
"""

import ctypes
import json
import sys
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

THREADS, N_CTX = 2, 64
SILENT = llama_cpp.llama_log_callback(lambda *_: None)


def float32_file(model: str, out: Path) -> str:
    """Write a model with its weights as float32, and return the path."""
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
    path = out / "float32.gguf"
    refused = llama_cpp.llama_model_quantize(model.encode(), str(path).encode(), ctypes.byref(settings))
    assert not refused, f"llama.cpp did not write {path}"
    return str(path)


def steer(llama: llama_cpp.Llama, path: Path) -> None:
    """Steer by a control vector, laid out for every block from 1 as llama.cpp's own loader does."""
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.architecture"].contents() == "controlvector"
    d, n_layers = llama.n_embd(), llama_cpp.llama_model_n_layer(llama.model)
    rows = np.zeros((n_layers - 1, d), np.float32)
    for tensor in reader.tensors:
        layer = int(tensor.name.removeprefix("direction."))
        assert layer >= 1
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert tensor.data.shape == (d,)
        rows[layer - 1] = tensor.data
    numbers = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    refused = llama_cpp.llama_set_adapter_cvec(llama.ctx, numbers, rows.size, d, 1, n_layers)
    assert not refused, f"llama.cpp refused {path}"


def logits_of(model: str, prompts: list[list[int]], vector: Path | None) -> np.ndarray:
    """Return the logits of every token of the prompts, `[tokens, d_vocab]`."""
    float32 = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}  # keys and values in the cache
    llama = llama_cpp.Llama(model, n_ctx=N_CTX, n_threads=THREADS, logits_all=True, verbose=False, **float32)
    if vector is not None:
        steer(llama, vector)
    rows = []
    for tokens in prompts:
        llama.reset()
        llama.eval(tokens)
        rows.append(np.array(llama.scores[: len(tokens)]))
    llama.close()
    return np.concatenate(rows)


def centred(logits: np.ndarray) -> np.ndarray:
    """Return logits less the mean of each token, flat, in float64."""
    return (logits - logits.mean(1, keepdims=True, dtype=np.float64)).ravel()


def compared(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Return the correlation of two flat arrays, and the distance of theirs relative to the length of ours."""
    distance = np.linalg.norm(theirs - ours) / np.linalg.norm(ours)
    return float(np.corrcoef(ours, theirs)[0, 1]), float(distance)


def main(out: Path) -> None:
    """Compare unsteered logits, and the change by each vector with ours at its own block."""
    llama_cpp.llama_log_set(SILENT, ctypes.c_void_p(0))
    asked = json.loads((out / "asked.json").read_text(encoding="utf-8"))
    ours, own = dict(np.load(out / "ours.npz")), asked["layer"]
    change = centred(ours[str(own)] - ours["unsteered"])
    # (largest distance of the unsteered logits, of the change)
    tolerances = {asked["model"]: (0.05, 0.3), float32_file(asked["model"], out): (1e-4, 1e-3)}
    for model, (unsteered_tolerance, tolerance) in tolerances.items():
        unsteered = logits_of(model, asked["prompts"], None)
        correlation, distance = compared(centred(ours["unsteered"]), centred(unsteered))
        print(f"{Path(model).name}: unsteered logits, correlation {correlation:.5f}, distance {distance:.2g}")
        assert distance < unsteered_tolerance
        distances = {}
        for layer in (own - 1, own, own + 1):
            theirs = centred(logits_of(model, asked["prompts"], out / f"{layer}.gguf") - unsteered)
            correlation, distances[layer] = compared(change, theirs)
            print(
                f"  vector at block {layer}, ours at {own}: correlation {correlation:.5f}, "
                f"distance {distances[layer]:.2g}"
            )
        assert distances[own] < min(tolerance, distances[own - 1], distances[own + 1])
    spared = centred(ours["without the first token"] - ours["unsteered"])
    correlation, distance = compared(change, spared)
    print(f"ours, first token not steered: correlation {correlation:.5f}, distance {distance:.2g}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
