"""Looking: pages over a workspace, served to this machine.

Start here:

- `dashboard.app.create_app(workspace)`: the Dash app; `dashboard.serve.serve` puts it on a port
- `dashboard.views`: what each page asks of the workspace
- `dashboard.figures`: tables in, plotly figures out; used by notebooks too
- `dashboard.prompt.live`: prompts on a loaded model, the only module here that loads torch
"""
