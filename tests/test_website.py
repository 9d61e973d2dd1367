"""The website's parts: links, folded solutions, tables, the reference's text, formulas, and the check of the built pages."""

import importlib.util
import json
import re
from types import SimpleNamespace

import nbformat
import pytest

import website
from build import HERE, BuildError, launch_links
from chargpt_lib.course import Page, read_course
from linkcheck import describe_weights, page_weights, site_faults

ADDRESS = "https://github.com/owner/name"
PAGES = read_course()
FOUND = website.documents(PAGES, ["gpt", "data"])


def relinked(text, path="notebooks/03_single_head.ipynb", file="03_single_head.ipynb", to=None):
    return website.relinked(text, path, file, FOUND, HERE.root, to)


# ---------------------------------------------------------------- links


@pytest.mark.parametrize(
    "link, wanted",
    [
        ("[next](04_multi_head.ipynb)", "[next](04_multi_head.ipynb)"),
        ("[solved](solutions/04_multi_head.ipynb)", "[solved](04_multi_head.ipynb)"),
        ("[plays](appendix/playhouse.ipynb)", "[plays](appendix/playhouse.ipynb)"),
        ("[teach](TEACHING.md#pacing)", "[teach](teaching.md#pacing)"),
        ("[records](../data/results/README.md)", "[records](results.md)"),
        ("[front](../README.md)", "[front](index.md)"),
        ("[model](../chargpt_lib/gpt.py)", "[model](reference/gpt.rst)"),
        ("`chargpt_lib/gpt.py`", "[`chargpt_lib/gpt.py`](reference/gpt.rst)"),
        ("[paper](https://arxiv.org/abs/1)", "[paper](https://arxiv.org/abs/1)"),
        ("[below](#exercises)", "[below](#exercises)"),
        ("x = table[i](j)", "x = table[i](j)"),
    ],
)
def test_links_between_pages_fit_the_site(link, wanted):
    assert relinked(link) == wanted


def test_links_from_a_folder_lead_up():
    text = relinked("[03](../03_single_head.ipynb)", "notebooks/appendix/x.ipynb", "appendix/x.md")
    assert text == "[03](../03_single_head.ipynb)"


def test_what_is_not_on_the_site_is_linked_where_it_is_published():
    link = "the [`judge`](../chargpt_lib/exercises/judge.py) judges"
    assert relinked(link) == "the `judge` judges"
    there = f"{ADDRESS}/blob/main/chargpt_lib/exercises/judge.py"
    assert relinked(link, to=ADDRESS) == f"the [`judge`]({there}) judges"


def test_a_broken_link_stays_for_sphinx_to_complain_about():
    assert relinked("[x](nowhere.ipynb)") == "[x](nowhere.ipynb)"


# ---------------------------------------------------------------- notebooks


def notebook(*cells):
    made = nbformat.v4.new_notebook()
    for kind, source, metadata in cells:
        new = nbformat.v4.new_markdown_cell if kind == "prose" else nbformat.v4.new_code_cell
        cell = new(source, metadata=metadata)
        if kind == "setup":
            cell.id = "setup"
        made.cells.append(cell)
    return made


def exercise(body):
    return ("code", f"def f(x):\n    {body}", {"tags": ["exercise"], "exercise": "f"})


LEARNERS = notebook(
    ("prose", "# Title\n\n[![Open in Colab](a.svg)](b)\n\n> Says what.", {}),
    ("setup", "import sys", {"tags": ["nbval-ignore-output"]}),
    ("prose", "### Exercise: f", {}),
    exercise("raise NotAttempted"),
    ("code", 'check("f", f)', {}),
    ("code", 'if passed("f"):\n    check("f", f)', {}),
    ("prose", "- A mistake.\n\nHow far you are:", {}),
    ("code", "progress()", {}),
    ("prose", "What you have answered so far:", {}),
    ("code", "progress()", {}),
)
SOLVED = notebook(exercise("return x + 1"))


def test_a_page_to_read_has_solutions_folded_and_nothing_to_check():
    sources = [
        cell.source for cell in website.site_notebook(LEARNERS, SOLVED, lambda text: text).cells
    ]
    assert sources[0] == "# Title\n\n> Says what."
    box = sources[sources.index("def f(x):\n    raise NotAttempted") + 1]
    assert box.startswith(":::{dropdown} Solution\n") and "return x + 1" in box
    assert 'check("f", f)' not in sources and "progress()" not in sources
    assert sources[-1] == "- A mistake.", "nothing announces the list that is gone"
    assert 'if passed("f"):\n    check("f", f)' in sources, "it does something else besides"


def test_the_setup_is_folded_and_the_committed_notebook_is_not_changed():
    before = json.dumps(LEARNERS)
    page = website.site_notebook(LEARNERS, SOLVED, lambda text: text)
    assert "hide-cell" in page.cells[1].metadata["tags"]
    assert json.dumps(LEARNERS) == before


def test_pictures_keep_their_alt_text():
    page = notebook(("code", "show(fig)", {}))
    page.cells[0].outputs = [
        nbformat.v4.new_output(
            "display_data", {"image/png": ""}, metadata={"image/png": {"alt": "a line that falls"}}
        )
    ]
    [cell] = website.site_notebook(page, None, lambda text: text).cells
    assert cell.metadata["mystnb"]["image"]["alt"] == "a line that falls"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_exercise_of_the_course_has_its_solution(page):
    learners = nbformat.read(HERE.notebook(page.name), as_version=4)
    path = HERE.notebook(page.name, solved=True)
    solved = nbformat.read(path, as_version=4) if path.exists() else None
    cells = website.site_notebook(learners, solved, lambda text: text).cells
    names = [cell.metadata["exercise"] for cell in cells if "exercise" in cell.metadata]
    boxes = [cell.id.removeprefix("answer-") for cell in cells if cell.id.startswith("answer-")]
    assert names == boxes
    assert not [cell for cell in cells if website.is_check(cell) or website.is_progress(cell)]
    for cell in cells:
        # The site shows one alt text a cell.
        pictures = [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        assert len(pictures) <= 1


# ---------------------------------------------------------------- tables


def test_tables_are_markdown():
    made = website.table(["a", "b"], [["x|y", 1]], numbers=(1,))
    assert made == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |"


def test_the_ladder_is_that_of_the_readme():
    ladder = json.loads((HERE.root / "data" / "results" / "ladder.json").read_text())
    readme = (HERE.root / "README.md").read_text(encoding="utf-8")
    rows = website.ladder_table(ladder).split("\n")[2:]
    for row in rows:
        fields = [field.strip() for field in row.strip("|").split("|")]
        assert f"| {' | '.join(fields)} |".replace("|  |", "| |") in readme


def test_the_minutes_are_those_of_the_readme():
    ladder = json.loads((HERE.root / "data" / "results" / "ladder.json").read_text())
    made = website.lessons_table(PAGES, ladder["playhouse"]["lessons"])
    readme = (HERE.root / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        [minutes] = re.findall(rf"^\|.*\(notebooks/{page.name}\.ipynb\).* (\S+) \|$", readme, re.M)
        link = f"[{page.title}]({page.name}.ipynb)"
        assert f"| {link} | {page.builds} | {page.minutes} | {minutes} |" in made


def test_the_records_become_tables():
    records = website.read_records(HERE)
    text = (HERE.root / "data" / "results" / "README.md").read_text(encoding="utf-8")
    page = website.results_page(text, records, "five bars")
    assert page.index("## The ladder") < page.index("## Published numbers, reproduced")
    assert "![five bars](data/results/ladder.png)" in page
    whole = records["modern"]["parts"]["whole"]
    loss = sum(whole["losses"]["equal steps"].values()) / 3
    assert f"| whole | {whole['parameters']:,} | {loss:.3f} |" in page
    fast = records["sampling"]["characters a second"]["ours, int8"]["median"]
    assert f"| ours, int8 | {fast:,.0f} |" in page
    assert f"| {records['step']['cases']['lesson 06']['ms']['ours']['median']:.1f} |" in page
    assert f"| {records['machines']['all threads']['cells']} | 0 |" in page


def test_a_table_goes_to_the_end_of_its_section():
    text = "# T\n\n## One\n\nfirst\n\n## Two\n\nsecond\n"
    wanted = "# T\n\n## One\n\nfirst\n\n| t |\n\n## Two\n\nsecond\n"
    assert website.with_section_end(text, "One", "| t |") == wanted
    with pytest.raises(BuildError, match="Three"):
        website.with_section_end(text, "Three", "")


# ---------------------------------------------------------------- the front page


def test_the_template_knows_its_values():
    assert website.front_page("a {{ one }} b", {"one": "1"}) == "a 1 b"
    with pytest.raises(BuildError, match="two"):
        website.front_page("{{ two }}", {})


def test_live_pages_are_framed_and_can_be_opened_alone():
    frame = website.live_frames(["playhouse"])
    assert '<iframe src="live/playhouse.html" title="' in frame and 'loading="lazy"' in frame
    assert '<a href="live/playhouse.html">' in frame


def test_navigation_lists_every_page_once_in_reading_order():
    listed = re.findall(r"^([\w/]+)$", website.contents(PAGES), re.M)
    assert [name for name in listed if name in {page.name for page in PAGES}] == [
        page.name for page in PAGES
    ]
    assert set(website.PROSE.values()) - {"index"} <= set(listed)


# ---------------------------------------------------------------- the reference

KNOWN = {"generate": "chargpt_lib.sampling.generate"}


def test_a_docstring_becomes_prose_with_links_and_a_list_of_errors():
    text = (
        "Calls `generate`, not `print(x)` -> (B, T).\n\n"
        "    model.generate(2 ** 3)\n\n"
        "x_: any *args. Raises: ValueError where x is\n0."
    )
    assert website.docstring_rst(text, KNOWN) == (
        "Calls \\ :py:obj:`generate <chargpt_lib.sampling.generate>`\\ , not \\ ``print(x)``\\  → (B, T).\n\n"
        ".. code-block:: python\n\n       model.generate(2 ** 3)\n\n"
        "x\\_: any \\*args.\n\n"
        ":raises: ValueError where x is 0."
    )


def test_fields_are_explained_by_the_comments_behind_them():
    text = "class Config:\n    a: int = 1  # how many\n    b: str = '# no'\n    def f(self): pass\n"
    fields = website.field_comments(text, "Config")
    assert fields == {"a": "how many", "b": ""}
    assert website.docstring_rst("A config.", {}, fields).endswith("- ``a``: how many\n- ``b``")


def test_every_public_name_has_a_sentence_and_a_page():
    text = (HERE.library / "__init__.py").read_text(encoding="utf-8")
    public = website.module_of_public_names(text)
    modules = website.reference_modules(PAGES, public)
    assert set(public.values()) <= set(modules)
    assert [page.module for page in PAGES if page.module] == modules[: len(modules)][
        : sum(bool(page.module) for page in PAGES)
    ]
    texts = {name: (HERE.library / f"{name}.py").read_text(encoding="utf-8") for name in modules}
    index = website.reference_index(public, texts, modules)
    for name, module in public.items():
        assert f"<chargpt_lib.{module}.{name}>" in index
        assert website.summaries(texts[module])[name]


def test_constants_are_left_out_of_a_module_page():
    text = '"""Says what."""\nSIZE = 3\n\ndef f():\n    """Does it."""\n'
    page = Page("00_data", "00 · Data", "x", 1, "learner", module="data")
    made = website.module_rst("data", text, page)
    assert ":exclude-members: SIZE\n" in made and ":doc:`00 · Data </00_data>`" in made


# ---------------------------------------------------------------- formulas


def test_formulas_become_mathml():
    pytest.importorskip("math_core", reason="the extra `site` is not installed")
    block = website.mathml(r"\frac{1}{\sqrt{x^2 + 1}}", is_block=True)
    assert "<mfrac>" in block and "<msqrt>" in block and 'display="block"' in block
    assert '<msqrt class="low"><mi>d</mi></msqrt>' in website.mathml(r"\sqrt d", is_block=False)
    with pytest.raises(BuildError, match="unknowncommand"):
        website.mathml(r"\unknowncommand{x}", is_block=False)


def test_every_formula_of_the_course_is_one():
    pytest.importorskip("math_core", reason="the extra `site` is not installed")
    count = 0
    for page in PAGES:
        for cell in nbformat.read(HERE.notebook(page.name), as_version=4).cells:
            if cell.cell_type == "markdown":
                prose = re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.S)
                for block, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", prose, re.S):
                    assert website.mathml(block if block else inline, is_block=bool(block))
                    count += 1
    assert count > 400


def test_the_characters_of_formulas_are_collected():
    html = '<p>ß</p><math><mi>x</mi><mo lspace="0">&lt;</mo></math>é<math>∑</math>'
    assert website.math_characters(html) == {"x", "<", "∑"}


def test_the_fonts_have_what_formulas_need(tmp_path):
    pytest.importorskip("ziamath", reason="the extra `site` is not installed")
    from fontTools.ttLib import TTFont

    (tmp_path / "_static").mkdir()
    (tmp_path / "page.html").write_text("<math><mo>∑</mo><mi>x</mi></math>", encoding="utf-8")
    website.write_math_fonts(tmp_path)
    path = tmp_path / "_static" / website.MATH_FONT
    font = TTFont(path)
    drawn = font.getBestCmap()
    assert {ord("∑"), ord("𝑥"), ord("𝛼"), ord("ℎ"), website.ROOT_SIGN} <= drawn.keys()
    assert ord("∮") not in drawn and "MATH" in font and path.stat().st_size < 200_000
    assert "Open Font License" in font["name"].getDebugName(13)

    low = TTFont(tmp_path / "_static" / website.LOW_ROOT_FONT)
    [root] = low["MATH"].table.MathVariants.VertGlyphConstruction
    assert root.GlyphAssembly is None and len(root.MathGlyphVariantRecord) == 1


# ---------------------------------------------------------------- the built pages


def site(folder, **pages):
    for name, body in pages.items():
        (folder / f"{name}.html").write_text(f"<html><body>{body}</body></html>", encoding="utf-8")
    return site_faults(folder)


def test_a_whole_site_has_no_fault(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "s.css").write_text("p { background: url('a.png') }")
    one = '<link rel="stylesheet" href="s.css"><a href="two.html#here">x</a><img src="a.png">'
    two = '<p id="here"><a href="https://arxiv.org/x">y</a> <a href="#">up</a><img src="data:,x">'
    assert site(tmp_path, one=one, two=two) == []


@pytest.mark.parametrize(
    "body, fault",
    [
        ('<a href="three.html">x</a>', "three.html leads nowhere"),
        ('<a href="two.html#gone">x</a>', "an anchor that is not there"),
        ('<a href="#gone">x</a>', "an anchor that is not there"),
        ('<img src="gone.png">', "gone.png leads nowhere"),
        ('<img srcset="gone.png 2x">', "gone.png leads nowhere"),
        ('<iframe src="live/gone.html"></iframe>', "gone.html leads nowhere"),
        ('<a href="/two.html">x</a>', "begins with a slash"),
        ('<a href="../outside.html">x</a>', "leads nowhere"),
        ('<script src="https://cdn.example/x.js"></script>', "is not on the site"),
        ('<img src="//cdn.example/x.png">', "is not on the site"),
        ('<link rel="stylesheet" href="https://cdn.example/x.css">', "is not on the site"),
        ('<p style="background: url(https://cdn.example/x)">', "is not on the site"),
        ("<style>@import 'https://cdn.example/x.css';</style>", "is not on the site"),
    ],
)
def test_each_kind_of_broken_link_is_found(body, fault, tmp_path):
    [found] = site(tmp_path, one=body, two="")
    assert found.startswith("one.html: ") and fault in found


def test_a_style_that_loads_from_elsewhere_is_found(tmp_path):
    (tmp_path / "s.css").write_text("@font-face { src: url(https://fonts.example/x.woff2) }")
    [found] = site(tmp_path)
    assert "fonts.example" in found


def test_a_page_weighs_what_it_alone_loads(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "theme.css").write_bytes(b"x" * 500)
    (tmp_path / "a.png").write_bytes(b"x" * 1000)
    body = '<link rel="stylesheet" href="_static/theme.css"><img src="a.png"><img src="a.png">'
    assert site(tmp_path, one=body) == []
    weights, shared = page_weights(tmp_path)
    size = (tmp_path / "one.html").stat().st_size
    assert weights == {"one.html": size + 1000} and shared == 500
    assert "one.html" in describe_weights(weights, shared)


def test_folds_and_parameters_are_named_for_those_who_hear_them():
    html = (
        '<summary><span class="toctree-toggle"><dl>\n<dd><em class="sig-param">x</em></dd>\n</dl>'
    )
    assert website.accessible(html) == (
        '<summary aria-label="Its pages"><span class="toctree-toggle"><dl role="presentation">\n'
        '<dd role="presentation"><em class="sig-param">x</em></dd>\n</dl>'
    )


def test_only_used_icons_stay():
    script = 'a={"circle-half":[512,512,[9680,"adjust"],"f042","M4z"],sun:[1,2,[],"f1",["M1","M2"]],x:[1,2,[],"f2","M3"]}'
    assert website.with_used_icons(script, {"x", "adjust"}) == (
        'a={"circle-half":[512,512,[9680,"adjust"],"f042","M4z"],x:[1,2,[],"f2","M3"]}'
    )


# ---------------------------------------------------------------- the sources, and the buttons of a lesson


@pytest.fixture(scope="module", params=[None, ADDRESS], ids=["not published", "published"])
def sources(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    website.prepare(HERE, folder, ["playhouse"], request.param)
    return folder, request.param


def test_every_page_is_among_the_sources(sources):
    folder, _ = sources
    for file in website.documents(PAGES, ["gpt", "playhouse"]).values():
        assert (folder / file).is_file(), file
    assert "{{" not in (folder / "index.md").read_text(encoding="utf-8")


def test_the_address_is_written_only_where_there_is_one(sources):
    folder, address = sources
    text = (folder / "teaching.md").read_text(encoding="utf-8")
    front = (folder / "index.md").read_text(encoding="utf-8")
    assert (ADDRESS in text) is (ADDRESS in front) is (address is not None)
    assert "](../" not in text, "a link out of the site"


def test_a_lesson_has_buttons_and_other_hosts_where_it_is_published(sources, monkeypatch):
    pytest.importorskip("sphinx", reason="the extra `site` is not installed")
    folder, address = sources
    spec = importlib.util.spec_from_file_location("course_conf", HERE.root / "site" / "conf.py")
    monkeypatch.setattr("sys.path", list(__import__("sys").path))  # conf.py adds to it
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    app = SimpleNamespace(srcdir=folder)
    context = {"header_buttons": [], "pathto": lambda name, resource: f"../{name}"}
    conf.add_page_buttons(app, "appendix/playhouse", "page.html", context, None)
    [group] = context["header_buttons"]
    links = {button["text"]: button["url"] for button in group["buttons"]}
    assert links.pop("Download the notebook") == "../notebooks/appendix/playhouse.ipynb"
    path = "notebooks/appendix/playhouse.ipynb"
    wanted = {f"Open in {host}": link for host, (_, link) in launch_links(address, path).items()}
    assert links == wanted and len(links) == (3 if address else 0)

    conf.add_page_buttons(app, "teaching", "page.html", context, None)
    assert context["header_buttons"] == [group], "a page of prose cannot be run"
