"""The command line, `workbench VERB`.

- `verbs`     one class per verb
- `shipped`   the dictionary that ships
- `opening`   from a name to the thing: models, recordings, dictionaries, tasks, vectors
- `commands`  the verbs that the dashboard runs: a form and checks for each
- `terminal`  options, help, lines of output, progress bar
- `demo`      the verb `demo`: the whole pipeline on a real model
"""
