"""The course as a website: from the executed notebooks, the prose, the docstrings and the records; nothing is executed.

python notebooks/tools/website.py                                       dist/site
python notebooks/tools/website.py --out FOLDER                          another folder
python notebooks/tools/website.py --address https://github.com/o/n      as if published there: launch buttons, links

The sources that Sphinx reads are written beside it, to site-source; site/conf.py has Sphinx's settings.
"""

import argparse
import ast
import json
import logging
import os
import re
import shutil
import sys
import time
from html import unescape
from pathlib import Path, PurePosixPath
from statistics import fmean

import nbformat

from build import BRANCH, HERE, BuildError, launch_links, public_names
from chargpt_lib.training import MODEL_NAMES
from linkcheck import describe_weights, page_weights, site_faults
from project import LIBRARY

# Prose of the repository that is a page of the site: its path, and the name of its page.
PROSE = {
    "README.md": "index",
    "notebooks/TEACHING.md": "teaching",
    "notebooks/RUNNING_ELSEWHERE.md": "running_elsewhere",
    "chargpt_lib/cli/README.md": "command",
    "data/results/README.md": "results",
    "data/README.md": "corpora",
}
# The records, and the pictures beside them; on the site pictures lie where they lie in the repository.
RECORDS = "data/results"
PICTURE_ENDINGS = (".png", ".svg")
MATH_FONT = "stix-two-math.woff"
LOW_ROOT_FONT = "stix-two-math-low-root.woff"
# What the live pages are called on the front page, and what a reader can do there.
LIVE_TITLES = {
    "playhouse": "The model of the lessons, which has read nonsense plays",
    "shakespeare": "A larger model, which has read Shakespeare",
}
LIVE_TEXTS = {
    "playhouse": (
        "A barn. Enter Meg and Toby with a damp goose.\nToby: The owl sings.\n"
        "Meg: You odd nun!\nExit Toby, licking the goose.\n"
    ),
    "shakespeare": "ROMEO:\nWhat light is this that falls upon my page?\n\nJULIET:\n",
}


# ---------------------------------------------------------------- links


def documents(pages, modules):
    """{path in the repository: file among the sources} of everything that is on the site."""
    found = {}
    for page in pages:
        file = f"{page.name}.ipynb"
        found[f"notebooks/{file}"] = file
        # A solution is folded into its lesson.
        found[f"notebooks/solutions/{file}"] = file
    for path, name in PROSE.items():
        found[path] = f"{name}.md"
    for module in modules:
        found[f"{LIBRARY}/{module}.py"] = f"reference/{module}.rst"
    return found


def relative(target, file):
    """The link from one file among the sources to another."""
    return os.path.relpath(target, PurePosixPath(file).parent).replace(os.sep, "/")


LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|#|/")
MODULE_IN_CODE = re.compile(rf"(?<!\[)`({LIBRARY}/\w+\.py)`")


def relinked(text, path, file, found, root, address):
    """Markdown of a file of the repository -> the same with links that fit the site.

    path: the file's path in the repository; file: where it lies among the sources; found: what `documents` returns.
    A link to what is not on the site leads to the published repository; without an address only its text stays.
    """

    def link(match):
        mark, label, target = match.groups()
        if ELSEWHERE.match(target):
            return match[0]
        place, _, anchor = target.partition("#")
        wanted = os.path.normpath(PurePosixPath(path).parent / place).replace(os.sep, "/")
        if wanted in found:
            ending = f"#{anchor}" if anchor else ""
            return f"{mark}[{label}]({relative(found[wanted], file)}{ending})"
        if not (root / wanted).exists():
            return match[0]  # no link at all, or a broken one, of which Sphinx will complain
        if address:
            return f"{mark}[{label}]({address}/blob/{BRANCH}/{wanted})"
        return label

    def reference(match):
        if match[1] not in found:
            return match[0]
        return f"[`{match[1]}`]({relative(found[match[1]], file)})"

    return LINK.sub(link, MODULE_IN_CODE.sub(reference, text))


# ---------------------------------------------------------------- notebooks

CHECK = re.compile(r'check\("\w+", \w+\)')
BADGES = re.compile(r"^\[!\[Open in .*\n\n?", re.M)


def is_check(cell):
    """Whether a cell does nothing but check the answer to an exercise."""
    return cell.cell_type == "code" and CHECK.fullmatch(cell.source.strip()) is not None


def is_progress(cell):
    """Whether a cell does nothing but list the exercises that are answered."""
    return cell.cell_type == "code" and cell.source.strip() == "progress()"


def without_last_paragraph(text):
    """Markdown without its last paragraph; "" where there is only one."""
    return "\n\n".join(text.rstrip().split("\n\n")[:-1])


def answers(solution):
    """{name of an exercise: its answer} of a solved notebook."""
    return {
        cell.metadata["exercise"]: cell.source
        for cell in solution.cells
        if "exercise" in cell.metadata
    }


def folded_solution(answer):
    """Markdown: a closed box with the answer to an exercise."""
    return f":::{{dropdown}} Solution\n:class-container: solution\n\n```python\n{answer}\n```\n:::"


def with_alt_text(cell):
    """The cell, whose picture has its alt text where the site looks for it."""
    for output in cell.get("outputs", []):
        alt = output.get("metadata", {}).get("image/png", {}).get("alt")
        if alt:
            cell.metadata["mystnb"] = {"image": {"alt": alt}}
    return cell


def folded_setup(cell):
    """The setup cell, closed: who reads has nothing to set up."""
    cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-cell"]
    cell.metadata["mystnb"] = {
        "code_prompt_show": "Setup, for running this page",
        "code_prompt_hide": "Setup, for running this page",
    }
    return cell


def site_notebook(notebook, solution, relink):
    """The executed notebook as a page to read: setup folded, solutions folded under their exercises.

    Badges go, because the page has buttons, and so do the cells that check answers, because nobody can answer here.
    solution: the solved notebook or None; relink(text): Markdown with the site's links.
    """
    solved = answers(solution) if solution else {}
    cells = []
    for cell in nbformat.from_dict(notebook).cells:
        if is_check(cell):
            continue
        if is_progress(cell):
            # The last words before it say what the list is.
            cells[-1].source = without_last_paragraph(cells[-1].source)
            continue
        if cell.cell_type == "markdown":
            cell.source = relink(BADGES.sub("", cell.source))
            cells.append(cell)
            continue
        if cell.id == "setup":
            cell = folded_setup(cell)
        cells.append(with_alt_text(cell))
        name = cell.metadata.get("exercise")
        if name in solved:
            box = nbformat.v4.new_markdown_cell(folded_solution(solved[name]), id=f"answer-{name}")
            cells.append(box)
    page = nbformat.v4.new_notebook(cells=[cell for cell in cells if cell.source.strip()])
    page.metadata = notebook.metadata
    return page


# ---------------------------------------------------------------- tables


def table(head, rows, numbers=()):
    """A Markdown table. numbers: the columns, counted from 0, that are aligned to the right."""
    rules = ["---:" if column in numbers else "---" for column in range(len(head))]
    lines = [head, rules, *rows]
    written = []
    for line in lines:
        fields = [str(field).replace("|", "\\|") for field in line]
        # An empty field is one space.
        written.append(f"| {' | '.join(fields)} |".replace("|  |", "| |"))
    return "\n".join(written)


def run_minutes(lessons, name):
    """How many minutes a lesson's notebook runs, of the recorded ones; "" where it was not recorded."""
    recorded = lessons.get(name)
    if recorded is None:
        return ""
    return f"{recorded['all'] / 60:.1f}"


def lessons_table(pages, lessons):
    """The pages of the course: what is built there, minutes to read, minutes to run (of the recorded ladder)."""
    rows = []
    for page in pages:
        link = f"[{page.title}]({page.name}.ipynb)"
        rows.append([link, page.builds, page.minutes, run_minutes(lessons, page.name)])
    head = ["lesson", "what you build", "minutes to read", "to run (2 CPU cores)"]
    return table(head, rows, numbers=(2, 3))


def ladder_table(ladder):
    """The exact loss of each rung, on both corpora, from ladder.json."""
    floor = ladder["playhouse"]["GPT"]["floor"]
    rows = []
    for name in MODEL_NAMES:
        on_plays = ladder["playhouse"][name]
        above = on_plays["loss"] - floor
        rows.append(
            [
                name,
                f"{on_plays['loss']:.3f}",
                f"{above:.3f}",
                f"{on_plays['seconds']:.0f}",
                f"{ladder['shakespeare'][name]['loss']:.3f}",
            ]
        )
    rows.append(["the floor", f"{floor:.3f}", "0", "", "nobody knows"])
    head = ["rung", "Playhouse", "above the floor", "seconds of training", "Tiny Shakespeare"]
    return table(head, rows, numbers=(1, 2, 3, 4))


def excess_table(ladder):
    """Where the nats go: what each rung pays above the floor for each kind of text, from ladder.json."""
    kinds = list(ladder["playhouse"]["GPT"]["excess"])
    rows = []
    for kind in kinds:
        paid = [ladder["playhouse"][name]["excess"][kind] for name in MODEL_NAMES]
        rows.append([kind, *(f"{nats:.3f}" for nats in paid)])
    return table(["kind of text", *MODEL_NAMES], rows, numbers=range(1, 1 + len(MODEL_NAMES)))


def counts_table(ladder):
    """The loss of tables of n-grams with backoff, from ladder.json."""
    orders = sorted(ladder["playhouse"]["n-grams"], key=int)
    rows = []
    for corpus, title in (("playhouse", "Playhouse"), ("shakespeare", "Tiny Shakespeare")):
        losses = ladder[corpus]["n-grams"]
        rows.append([title, *(f"{losses[n]:.3f}" for n in orders)])
    return table(["characters counted together", *orders], rows, numbers=range(1, 1 + len(orders)))


def parts_table(modern):
    """Lesson 16's parts, one added to or taken out of a model, means of the seeds, from modern.json."""
    rows = []
    for name, row in modern["parts"].items():
        losses = row["losses"]
        rows.append(
            [
                name,
                f"{row['parameters']:,}",
                f"{fmean(losses['equal steps'].values()):.3f}",
                f"{fmean(losses['equal time'].values()):.3f}",
                row["steps"]["equal time"],
            ]
        )
    head = ["model", "parameters", "loss after 600 steps", "loss after equal time", "steps in it"]
    return table(head, rows, numbers=range(1, 5))


def sampling_table(sampling):
    """How fast a model writes, from sampling.json."""
    rows = []
    for name, speed in sampling["characters a second"].items():
        low, high = speed["quartiles"]
        rows.append([name, f"{speed['median']:,.0f}", f"{low:,.0f} to {high:,.0f}"])
    return table(["sampling", "characters a second", "quartiles"], rows, numbers=(1, 2))


def step_table(step):
    """How long a step of training takes, from step.json."""
    rows = []
    for name, case in step["cases"].items():
        medians = [case["ms"][rival]["median"] for rival in ("ours", "plain", "transformers")]
        rows.append([name, *(f"{milliseconds:.1f}" for milliseconds in medians)])
    head = ["a training step, milliseconds", "ours", "plain loop", "transformers"]
    return table(head, rows, numbers=(1, 2, 3))


def machines_table(machines):
    """The notebooks as if on other machines, from machines.json."""
    rows = []
    for name, run in machines.items():
        rows.append([name, run["python"], run["torch"], run["cells"], len(run["failed"])])
    head = ["all notebooks", "Python", "PyTorch", "cells", "failed"]
    return table(head, rows, numbers=(3, 4))


def with_section_end(text, heading, addition):
    """Markdown with something more at the end of the section of this `## ` heading. Raises: BuildError."""
    sections = re.split(r"^(?=## )", text, flags=re.M)
    for index, section in enumerate(sections):
        if section.startswith(f"## {heading}\n"):
            sections[index] = f"{section.rstrip()}\n\n{addition}\n\n"
            return "".join(sections)
    raise BuildError(f"data/results/README.md has no section called {heading!r}")


def ladder_section(ladder, alt):
    """Markdown: the ladder of losses, in a picture and in tables."""
    return "\n\n".join(
        [
            "## The ladder",
            "Exact validation loss in nats per character: the whole validation text, each character predicted once. "
            "The floor is the entropy of the text: no model can do better.",
            f"![{alt}]({RECORDS}/ladder.png)",
            ladder_table(ladder),
            "What each rung pays above the floor, by kind of text, in nats per character of the whole text:",
            excess_table(ladder),
            "Tables of counted n-grams with backoff (lesson 01):",
            counts_table(ladder),
            "",
        ]
    )


def results_page(text, records, alt):
    """The page of records: the text of data/results/README.md, with the ladder and tables of the JSON files.

    records: {name of a JSON file without its ending: what it holds}; alt: the ladder's picture in words.
    """
    beginning, heading, rest = text.partition("\n## ")
    if heading:
        text = f"{beginning}\n{ladder_section(records['ladder'], alt)}\n## {rest}"
    additions = {
        "Speed": f"{sampling_table(records['sampling'])}\n\n{step_table(records['step'])}",
        "The modern GPT, part by part": parts_table(records["modern"]),
        "Other seeds, other machines": machines_table(records["machines"]),
    }
    for title, addition in additions.items():
        text = with_section_end(text, title, addition)
    return text


def alt_text(markdown, picture):
    """What the README says in words of a picture. Raises: BuildError where it does not show it."""
    found = re.search(rf"!\[([^\]]+)\]\([^)]*{re.escape(picture)}\)", markdown)
    if found is None:
        raise BuildError(f"README.md does not show {picture}")
    return found[1]


# ---------------------------------------------------------------- the front page


def live_pages(project=HERE):
    """{name: HtmlPage} of the recorded models, which compute in the reader's browser."""
    from chargpt_lib.checkpoints import load_model
    from chargpt_lib.gpt import load_pretrained
    from chargpt_lib.playground import playground

    model, tokenizer, record = load_pretrained("playhouse")
    plays = playground(model, tokenizer, LIVE_TEXTS["playhouse"], record["floor"])
    lines = load_model(project.root / "data" / "models" / "shakespeare")
    return {"playhouse": plays, "shakespeare": playground(*lines, LIVE_TEXTS["shakespeare"])}


def live_frames(names):
    """HTML that shows the live pages of these names, each with a link that opens it alone."""
    frames = []
    for name in names:
        title = LIVE_TITLES.get(name, name)
        frames.append(
            f'<div class="live">\n'
            f'<p class="live-title">{title} (<a href="live/{name}.html">open this page alone</a>)</p>\n'
            f'<iframe src="live/{name}.html" title="{title}" loading="lazy"></iframe>\n'
            f"</div>"
        )
    return "\n\n".join(frames)


def contents(pages):
    """The tables of contents, which are the site's navigation."""
    lessons = [page.name for page in pages if page.layer == "lesson"]
    others = [page.name for page in pages if page.layer != "lesson"]
    groups = {
        "Lessons": lessons,
        "Appendix": others,
        "Around the course": ["teaching", "running_elsewhere", "corpora"],
        "The library": ["command", "reference/index", "results"],
    }
    parts = []
    for caption, names in groups.items():
        listed = "\n".join(names)
        parts.append(f"```{{toctree}}\n:caption: {caption}\n:hidden:\n\n{listed}\n```")
    return "\n\n".join(parts)


def front_page(template, values):
    """The template with a value in the place of each `{{ name }}`. Raises: BuildError for a name without a value."""

    def value(match):
        if match[1] not in values:
            raise BuildError(f"site/index.md asks for {match[0]}, which the build does not know")
        return values[match[1]]

    return re.sub(r"\{\{ (\w+) \}\}", value, template)


# ---------------------------------------------------------------- the reference


def first_paragraph(docstring):
    """The first paragraph of a docstring in one line, without what it may raise; "" without a docstring."""
    if not docstring:
        return ""
    return " ".join(docstring.strip().split("\n\n")[0].split("Raises:")[0].split())


def summaries(text):
    """{name: the first paragraph of its docstring} of the public functions and classes of a module's text."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            found[node.name] = first_paragraph(ast.get_docstring(node))
    return found


def module_of_public_names(text):
    """{public name: module} of the library, read from the text of its __init__.py."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_MODULE_OF":
            return ast.literal_eval(node.value)
    raise BuildError(f"{LIBRARY}/__init__.py has no _MODULE_OF")


def field_comments(text, name):
    """{field: comment} of the annotated fields of a class, from the ends of their lines in the module's text."""
    lines = text.split("\n")
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for part in node.body:
                if isinstance(part, ast.AnnAssign):
                    _, mark, comment = lines[part.end_lineno - 1][part.end_col_offset :].partition(
                        "# "
                    )
                    found[part.target.id] = comment if mark else ""
    return found


def escaped(text):
    """Plain text in which reStructuredText sees no markup, with arrows."""
    return re.sub(r"([\\*_|<>`])", r"\\\1", text.replace("->", "→"))


def inline_rst(text, known):
    """A docstring's paragraph as reStructuredText. known: {name: its full name} of what code in it can link to."""
    parts = text.split("`")
    written = []
    for number, part in enumerate(parts):
        is_code = number % 2 == 1 and number < len(parts) - 1
        if not is_code:
            written.append(escaped(part))
        elif part in known:
            written.append(f"\\ :py:obj:`{part} <{known[part]}>`\\ ")
        else:
            written.append(f"\\ ``{part}``\\ ")
    # A line must not begin with what begins a list.
    return "".join(written)


def docstring_rst(text, known, fields=None):
    """A docstring of the library as reStructuredText: prose, code by its indentation, `Raises:` as a list of its own.

    fields: {name: comment} of a class's fields, which get a list.
    """
    blocks = []
    raised = []
    for paragraph in text.strip("\n").split("\n\n"):
        lines = paragraph.split("\n")
        if all(line.startswith("    ") for line in lines if line):
            code = "\n".join(f"   {line}" for line in lines)
            blocks.append(f".. code-block:: python\n\n{code}")
            continue
        prose, mark, raises = paragraph.partition("Raises: ")
        if prose.strip():
            blocks.append(inline_rst(prose.strip(), known))
        if mark:
            raised.append(inline_rst(" ".join(raises.split()), known))
    if fields:
        entries = [
            f"- ``{name}``: {inline_rst(comment, known)}" if comment else f"- ``{name}``"
            for name, comment in fields.items()
        ]
        blocks.append("\n".join(entries))
    blocks += [f":raises: {what}" for what in raised]
    return "\n\n".join(blocks)


def title_rst(title, line="="):
    return f"{title}\n{line * (2 * len(title))}"


def module_rst(module, text, page):
    """The page of a module with this text in the reference. page: the lesson that makes it, or None.

    Constants are left out: they have no docstrings of their own, and some are functions of PyTorch.
    """
    constants = [name for name in public_names(text) if name not in summaries(text)]
    about = ""
    if page is not None:
        about = f"Made in the lesson :doc:`{escaped(page.title)} </{page.name}>`.\n\n"
    name = f"{LIBRARY}.{module}"
    return (
        f"{title_rst(name)}\n\n{about}.. automodule:: {name}\n"
        "   :members:\n   :member-order: bysource\n"
        f"   :exclude-members: {', '.join(constants)}\n"
    )


def reference_index(public, texts, modules):
    """The first page of the reference: the public names, and a page for each module.

    public: {name: module}; texts: {module: its text}; modules: their names in the order of the course.
    """
    known = {name: f"{LIBRARY}.{module}.{name}" for name, module in public.items()}
    rows = []
    for name in sorted(public, key=str.lower):
        about = summaries(texts[public[name]]).get(name, "")
        link = f":py:obj:`{name} <{known[name]}>`"
        rows.append(f"   * - {link}\n     - {inline_rst(about, known)}")
    listed = "\n".join(f"   {module}" for module in modules)
    table_of_names = "\n".join(rows)
    return (
        f"{title_rst('Reference')}\n\n"
        f"The library ``{LIBRARY}``, one module a lesson. Shapes in the descriptions: B batch, T time, C channels, "
        f"H heads, V vocabulary; losses are in nats.\n\n"
        f"{title_rst('Public names', '-')}\n\n"
        f"What ``from {LIBRARY} import ...`` offers:\n\n"
        f".. list-table::\n   :header-rows: 1\n   :widths: 30 70\n\n   * - name\n     - what it is\n{table_of_names}\n\n"
        f"{title_rst('Modules', '-')}\n\n"
        f".. toctree::\n   :maxdepth: 1\n\n{listed}\n"
    )


def reference_modules(pages, public):
    """The modules with a page in the reference: the lessons' in their order, then others with public names."""
    modules = [page.module for page in pages if page.module]
    for module in sorted(set(public.values())):
        if module not in modules:
            modules.append(module)
    return modules


# ---------------------------------------------------------------- formulas


# A root over nothing but letters and digits.
LOW_ROOT = re.compile(r"<msqrt>(?=(?:<mrow>)?(?:<m[in]>[^<]*</m[in]>)+(?:</mrow>)?</msqrt>)")


def mathml(latex, is_block):
    """A formula as MathML, which browsers draw without a script. Raises: BuildError for what is no formula.

    Chromium leaves as much room to the right of a root as the widest sign that the font has for tall ones would need.
    Low roots therefore have a class, and a font whose only sign is the low one.
    """
    from math_core import LatexError, LatexToMathML

    converter = LatexToMathML()
    try:
        formula = converter.convert_with_local_state(latex.strip(), displaystyle=is_block)
    except LatexError as error:
        raise BuildError(f"not a formula: {latex!r}: {error}") from None
    return LOW_ROOT.sub('<msqrt class="low">', formula)


def math_characters(html):
    """The characters that the formulas of a page show."""
    characters = set()
    for formula in re.findall(r"<math.*?</math>", html, re.S):
        characters.update(unescape(re.sub(r"<[^>]*>", "", formula)))
    return characters


# Browsers draw a single letter in a formula as one of these: italic, Latin and Greek; the h has its place elsewhere.
MATH_LETTERS = (*range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C), 0x210E, *range(0x20, 0x7F))
# A root's sign is nowhere in the text of a formula.
ROOT_SIGN = 0x221A


def write_math_font(path, characters, variants=True):
    """Writes STIX Two Math, as ziamath brings it, with these characters only.

    variants: whether the sign of a root comes in several sizes.
    """
    from importlib.resources import files

    from fontTools import subset

    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of each table
    options = subset.Options()
    options.flavor = "woff"
    options.layout_features = ["*"]  # smaller primes, dotless letters under hats
    options.name_IDs = ["*"]  # the licence stays in the file
    with files("ziamath.fonts").joinpath("STIXTwoMath-Regular.ttf").open("rb") as file:
        font = subset.load_font(file, options, lazy=False)
    if not variants:
        sizes = font["MATH"].table.MathVariants
        index = sizes.VertGlyphCoverage.glyphs.index(font.getBestCmap()[ROOT_SIGN])
        root = sizes.VertGlyphConstruction[index]
        root.MathGlyphVariantRecord = root.MathGlyphVariantRecord[:1]
        root.GlyphAssembly = None
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[ord(char) for char in characters])
    subsetter.subset(font)
    subset.save_font(font, str(path), options)


def write_math_fonts(out):
    """Writes the fonts that the formulas of a built site need into its folder."""
    characters = {chr(code) for code in (*MATH_LETTERS, ROOT_SIGN)}
    for path in out.rglob("*.html"):
        characters |= math_characters(read(path))
    write_math_font(out / "_static" / MATH_FONT, characters)
    write_math_font(out / "_static" / LOW_ROOT_FONT, {chr(ROOT_SIGN)}, variants=False)


# ---------------------------------------------------------------- the sources of the site


def page_links(project, pages, address):
    """{page: [[text, address]]}: where each lesson can be opened. Its notebook, and Colab and others if published."""
    found = {}
    for page in pages:
        path = project.name(project.notebook(page.name))
        links = [[host, link] for host, (_, link) in launch_links(address, path).items()]
        found[page.name] = links
    return found


def read(path):
    return path.read_text(encoding="utf-8")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def read_records(project):
    """{name: what it holds} of the JSON files of measurements."""
    paths = sorted((project.root / RECORDS).glob("*.json"))
    return {path.stem: json.loads(read(path)) for path in paths}


def prepare(project, source, live, address=None):
    """Writes the sources that Sphinx reads. live: the names of the live pages on the front page."""
    root = project.root
    pages = project.pages()
    public = module_of_public_names(read(project.library / "__init__.py"))
    modules = reference_modules(pages, public)
    texts = {module: read(project.library / f"{module}.py") for module in modules}
    found = documents(pages, modules)
    for path in sorted((root / RECORDS).iterdir()):
        if path.suffix in PICTURE_ENDINGS:
            name = project.name(path)
            found[name] = name
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / name)

    for page in pages:
        file = f"{page.name}.ipynb"

        def relink(text, file=file):
            return relinked(text, f"notebooks/{file}", file, found, root, address)

        path = project.notebook(page.name)
        notebook = nbformat.read(path, as_version=4)
        solved = project.notebook(page.name, solved=True)
        solution = nbformat.read(solved, as_version=4) if solved.exists() else None
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(site_notebook(notebook, solution, relink), source / file)

    records = read_records(project)
    alt = alt_text(read(root / "README.md"), "ladder.png")
    for path, name in PROSE.items():
        if name != "index":
            text = read(root / path)
            if name == "results":
                text = results_page(text, records, alt)
            write(source / f"{name}.md", relinked(text, path, f"{name}.md", found, root, address))

    ladder = records["ladder"]
    repository = ""
    if address:
        repository = f"The repository: [{address.removeprefix('https://')}]({address})."
    values = {
        "alt": alt,
        "live": live_frames(live),
        "lessons": lessons_table(pages, ladder["playhouse"]["lessons"]),
        "ladder": ladder_table(ladder),
        "repository": repository,
        "contents": contents(pages),
    }
    write(source / "index.md", front_page(read(root / "site" / "index.md"), values))

    makers = {page.module: page for page in pages if page.module}
    write(source / "reference" / "index.rst", reference_index(public, texts, modules))
    for module in modules:
        page = module_rst(module, texts[module], makers.get(module))
        write(source / "reference" / f"{module}.rst", page)

    known = {}
    for module, text in texts.items():
        for name in public_names(text):
            known.setdefault(name, f"{LIBRARY}.{module}.{name}")
    settings = {
        "links": page_links(project, pages, address),
        "known": known,
        "modules": [f"{LIBRARY}.{module}" for module in modules],
    }
    write(source / "site.json", json.dumps(settings))


# ---------------------------------------------------------------- the build

# What the theme and Sphinx write, and what those who hear a page need in its place: a fold in the navigation has a
# name, and the parameters of a long signature, a list of definitions without terms, are no list.
FOR_READERS = (
    (
        '<summary><span class="toctree-toggle"',
        '<summary aria-label="Its pages"><span class="toctree-toggle"',
    ),
    ('<dd><em class="sig-param"', '<dd role="presentation"><em class="sig-param"'),
    ('<dl>\n<dd role="presentation">', '<dl role="presentation">\n<dd role="presentation">'),
)


# An icon in the theme's script: its name, width, height, other names, number, and outline.
ICON = re.compile(
    r'"?([a-z0-9-]+)"?:\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?', re.I
)
ICON_NAME = re.compile(r"\bfa-([a-z0-9-]+)")


def with_used_icons(script, used):
    """The theme's script of 2,000 icons with only those whose names are used: a tenth of what a first visit loads."""

    def kept(icon):
        names = {icon[1], *re.findall(r'"([^"]+)"', icon[2])}
        return icon[0] if names & used else ""

    return ICON.sub(kept, script)


def keep_used_icons(out):
    """Takes out of a built site the icons that none of its pages and scripts names."""
    script = out / "_static" / "scripts" / "fontawesome.js"
    used = set()
    for path in [*out.rglob("*.html"), *out.rglob("*.js")]:
        if path != script:
            used.update(ICON_NAME.findall(read(path)))
    write(script, with_used_icons(read(script), used))


def make_pictures_lighter(out):
    """Makes lossless WebP of the PNGs of a built site, where that is smaller: a third less, and the same pixels.

    -> {address of a PNG that is gone: address of the WebP in its place}.
    """
    from PIL import Image

    smaller = {}
    for path in sorted((out / "_images").glob("*.png")):
        picture = path.with_suffix(".webp")
        with Image.open(path) as image:
            image.save(picture, lossless=True, method=4)
        if picture.stat().st_size < path.stat().st_size:
            smaller[f"_images/{path.name}"] = f"_images/{picture.name}"
            path.unlink()
        else:
            picture.unlink()
    return smaller


def accessible(html):
    """A built page with names and roles for those who do not see it."""
    for old, new in FOR_READERS:
        html = html.replace(old, new)
    return html


def build_site(project, out, source, live, address=None):
    """Builds the site into the folder out. live: {name: HtmlPage}. Raises: BuildError that lists all faults."""
    from sphinx.cmd.build import build_main

    for folder in (out, source):
        if folder.exists():
            shutil.rmtree(folder)
    source.mkdir(parents=True)
    prepare(project, source, list(live), address)
    # -W: a warning is a fault; --keep-going: all of them are listed. Doctrees lie outside of the site.
    doctrees = source.parent / f"{source.name}-doctrees"
    options = ["-W", "--keep-going", "-q", "-E", "-b", "html", "-d", str(doctrees)]
    failed = build_main([*options, "-c", str(project.root / "site"), str(source), str(out)])
    shutil.rmtree(doctrees, ignore_errors=True)
    if failed:
        raise BuildError("Sphinx found the faults above")

    # The theme leaves templates among the files that it copies.
    for path in (out / "_static").glob("*macros.html"):
        path.unlink()
    smaller = make_pictures_lighter(out)
    for path in out.rglob("*.html"):
        html = accessible(read(path))
        for old, new in smaller.items():
            html = html.replace(old, new)
        write(path, html)
    keep_used_icons(out)
    for page in project.pages():
        copy = out / "notebooks" / f"{page.name}.ipynb"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project.notebook(page.name), copy)
    (out / "live").mkdir()
    for name, page in live.items():
        page.save(out / "live" / f"{name}.html")
    write_math_fonts(out)

    faults = site_faults(out)
    if faults:
        raise BuildError("\n".join(faults))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = HERE.root / "dist" / "site"
    parser.add_argument("--out", type=Path, default=default, help="the folder of the site")
    parser.add_argument("--address", default=HERE.published(), help="where the course is published")
    options = parser.parse_args()
    began = time.monotonic()
    out = options.out.resolve()
    source = out.with_name(f"{out.name}-source")
    try:
        build_site(HERE, out, source, live_pages(HERE), options.address)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(describe_weights(*page_weights(out)))
    print(f"{out}: built in {time.monotonic() - began:.0f} s; all links lead somewhere")
    return 0


if __name__ == "__main__":
    sys.exit(main())
