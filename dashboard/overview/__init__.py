"""The page `/`: a prompt to ask about, findings of the workspace, its artefacts as cards, and their origin."""
