"""Sphinx's settings for the course's website; notebooks/tools/website.py writes the sources and calls Sphinx."""

import json
import sys
from pathlib import Path

from docutils import nodes

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks" / "tools")]

import website

project = "chargpt"
author = "the chargpt authors"
html_title = "chargpt"
copyright = "the chargpt authors, MIT licence"
language = "en"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.githubpages",  # the sign by which Pages serves folders that begin with _
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
templates_path = ["templates"]
exclude_patterns = []

# The notebooks come executed and verified; here they are only shown.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
# The prose is shown as it was written.
smartquotes = False
suppress_warnings = []

autodoc_class_signature = "mixed"
add_module_names = False
python_maximum_signature_line_length = 80
viewcode_line_numbers = True

html_theme = "sphinx_book_theme"
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
html_static_path = ["static"]
html_css_files = ["course.css"]
html_js_files = ["live.js"]
html_favicon = "static/favicon.svg"
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False
# The search finds names; a list of all of them, and one of all modules, would be read by nobody.
html_use_index = False
html_domain_indices = False
html_theme_options = {
    # The page's own notebook is offered instead, as it is in the repository.
    "use_download_button": False,
    "use_fullscreen_button": False,
    # The sidebar has the search; a bar above it would have it a second time.
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_exclude = ".linenos, .gp"


def write_math(self, node):
    """Writes an inline formula as MathML."""
    self.body.append(website.mathml(node.astext(), is_block=False))
    raise nodes.SkipNode


def write_math_block(self, node):
    """Writes a formula of its own as MathML, in a box that scrolls where the screen is narrow."""
    formula = website.mathml(node.astext(), is_block=True)
    # tabindex: whoever has no mouse scrolls with the keys.
    self.body.append(
        f'<div class="formula" role="group" aria-label="formula" tabindex="0">{formula}</div>\n'
    )
    raise nodes.SkipNode


def settings_of(app):
    """What the build has written for this file: links of the pages, and the library's public names."""
    if not hasattr(app, "course_settings"):
        text = (Path(app.srcdir) / "site.json").read_text(encoding="utf-8")
        app.course_settings = json.loads(text)
    return app.course_settings


def rewrite_docstring(app, what, name, obj, options, lines):
    """The library's docstrings are plain prose; Sphinx wants reStructuredText."""
    fields = None
    if what == "class" and hasattr(obj, "__dataclass_fields__"):
        path = ROOT / f"{obj.__module__.replace('.', '/')}.py"
        fields = website.field_comments(path.read_text(encoding="utf-8"), obj.__name__)
    known = settings_of(app)["known"]
    lines[:] = website.docstring_rst("\n".join(lines), known, fields).split("\n")


def add_page_buttons(app, pagename, templatename, context, doctree):
    """A lesson gets buttons: its notebook, and, where the course is published, Colab and others."""
    links = settings_of(app)["links"].get(pagename)
    if links is None:
        return
    notebook = f"{context['pathto']('notebooks', 1)}/{pagename}.ipynb"
    buttons = [{"type": "link", "text": "Download the notebook", "url": notebook}]
    for host, address in links:
        buttons.append({"type": "link", "text": f"Open in {host}", "url": address})
    context["header_buttons"].insert(
        0,
        {
            "type": "group",
            "tooltip": "Run this page",
            "icon": "fas fa-rocket",
            "label": "launch-buttons",
            "buttons": buttons,
        },
    )


html_math_renderer = "mathml"


def setup(app):
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(write_math, None),
        block_renderers=(write_math_block, None),
    )
    app.connect("autodoc-process-docstring", rewrite_docstring)
    # After the theme, which begins the list of buttons.
    app.connect("html-page-context", add_page_buttons, priority=600)
