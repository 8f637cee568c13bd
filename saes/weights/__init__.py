"""SAE weights on disk.

folder.py   our folder, which is SAELens' inference format: `cfg.json` and `sae_weights.safetensors`
"""
