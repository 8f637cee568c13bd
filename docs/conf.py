"""Settings of the documentation site. `make docs` builds it; see `docs/build.py` for the steps."""

project = "interp workbench"
author = "the interp workbench's authors"
copyright = "MIT licence"
language = "en-GB"

extensions = ["myst_nb"]
root_doc = "index"
exclude_patterns = ["_build", "gallery/*.md", "**/.ipynb_checkpoints"]  # the gallery is for readers of the repository

html_theme = "furo"
html_title = "interp workbench"
html_static_path = ["static", "generated/static"]  # the second: plotly, from its package
html_css_files = ["site.css"]
html_js_files = [("figures.js", {"defer": "defer"})]
html_show_sphinx = False
html_copy_source = False
smartquotes = False  # a command or a name must be copied as it is typed
html_theme_options = {"footer_icons": []}

nb_execution_mode = "off"  # the tests execute the notebooks; the site shows what came out
nb_output_stderr = "remove"
nb_merge_streams = True
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
suppress_warnings = [
    "myst-nb.lexer",  # a notebook without outputs names no language version
    "ref.python",  # types in signatures are shortened: `dtype` is also a field of several classes
]

# Formulas are few. They are shown as MathML, which browsers draw by themselves, so that no script is fetched.
html_math_renderer = "mathml"


def setup(app):  # Sphinx calls this
    app.connect("source-read", _link_names)
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))


def _link_names(app, docname, source):
    from docs.api import with_links
    from docs.markdown import with_generated, with_steps, with_themes

    if not docname.startswith("generated/"):
        source[0] = with_generated(source[0], docname)
    source[0] = with_themes(source[0])
    if docname.startswith(("concepts/", "howto/", "explanation/", "findings/")):
        source[0] = with_links(with_steps(source[0]))


def _inline(translator, node):
    _mathml(translator, node, as_block=False)


def _block(translator, node):
    _mathml(translator, node, as_block=True)


def _mathml(translator, node, as_block):
    from docutils import nodes
    from docutils.utils.math.latex2mathml import tex2mathml

    translator.body.append(tex2mathml(node.astext(), as_block=as_block))
    raise nodes.SkipNode
