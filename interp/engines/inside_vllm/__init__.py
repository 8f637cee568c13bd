"""Files that run under the Python of vLLM: they import torch, safetensors and vLLM, and nothing of ours.

- `_process` loads the model and runs commands
- `_worker`  reads the values of modules, in vLLM's workers
"""
