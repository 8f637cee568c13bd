"""Files that run under the Python of vLLM: they import torch, safetensors and vLLM, and nothing of ours."""
