"""The page `/`: artefacts of the workspace and where they came from."""
