"""The front door: `workbench VERB`, one verb per artefact, plus `demo` and `serve`."""
