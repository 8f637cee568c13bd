"""The referee: planted cases whose answer is known, and the error rates of whatever answers them.

- `cases`  what is claimed, what is true, and what a tool answered, as files
- `kinds`  the kinds of claim: a module each, named for its subject; nothing else names it
- `run`    writes cases, and answers them with this workbench
- `baselines`  simpler methods that answer, too
- `score`  scores the answers of any tool
"""
