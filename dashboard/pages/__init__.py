"""One file per page: `layout(context, ...)` is what its address shows, `register(app, context)` its callbacks.

`overview` `/` · `atlas` `/atlas/<name>` · `feature` `/feature/<features>/<index>` · `prompt` `/prompt` ·
`heads` `/heads/<name>` · `circuit` `/circuit/<name>` · `sae` `/sae?name=` ·
`geometry` `/geometry?name=&list=` · `dynamics` `/dynamics?name=&seed=` · `changes` `/changes?name=`.
"""
