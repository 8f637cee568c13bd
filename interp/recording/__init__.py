"""Activations on disk: `record` writes them, `store.Recording` reads them."""
