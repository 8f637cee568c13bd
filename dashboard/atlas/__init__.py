"""The pages `/atlas` and `/atlas/<name>`: maps, with the routes that feed them."""
