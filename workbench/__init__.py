"""The command line, `workbench VERB`.

- `verbs`     one class per verb
- `opening`   from a name to the thing: models, recordings, dictionaries, tasks, vectors
- `analysis`  the runner of every verb that writes an artefact
- `first_look` the quick half of the doctor, before the first analysis of a model or dictionary
- `help`      options as they are typed and explained
- `serve`     the dashboard, the server for agents, checks of files
- `commands`  the verbs that the dashboard runs: a form and checks for each
- `terminal`  options, help, lines of output, progress bar
- `demo`      the verb `demo`: the whole pipeline on a real model
"""
