"""The command line, `workbench VERB`.

- `verbs`     one class per verb
- `analysis`  the runner of every verb that writes an artefact
- `engine`     the program that runs a model, and its certificate
- `first_look` the quick half of the doctor, before the first analysis of a model or dictionary
- `options`   options read off a verb and off a command, and typed again
- `serve`     the dashboard, the server for agents, checks of files
- `_protocol`  the Model Context Protocol: tools that are offered
- `ask`       acts as commands
- `atlas_sources` the vectors of a map by the name of their source
- `commands`  the verbs that the dashboard runs: a form and checks for each
- `terminal`  options, help, lines of output, progress bar
- `skills`    the steps of a journey for an agent, and the verb that prints them
- `demo`      the verb `demo`: the whole pipeline on a real model
- `own`       the verb `own`: the same for your own model and text
- `steps`     steps of a pipeline, each a verb that could be typed by hand
- `costs`     disk, memory and time of the steps on this machine
"""

import saes
