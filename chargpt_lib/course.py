"""The pages of the course, as `course.toml` describes them: the only place that knows their order."""

import tomllib
from dataclasses import dataclass

from chargpt_lib.files import checkout_dir, library_dir

LAYERS = ("base", "lesson", "appendix")


@dataclass(frozen=True)
class Page:
    """One page: a notebook and, where it makes one, a module of the library."""

    name: str  # 03_single_head, appendix/playhouse: the path of its text without the ending
    title: str
    builds: str  # what the learner builds there
    minutes: int  # to read and to talk about, without the exercises
    audience: str  # "learner", or "tinkerer" for those who train something of their own
    layer: str = "lesson"  # "base" modules lie below all lessons, "appendix" modules above them
    module: str | None = None

    @property
    def number(self):
        """ "03" of 03_single_head, None where the page has no number."""
        number = self.name.split("_")[0]
        return number if number.isdigit() else None

    @property
    def words(self):
        """What the page may be called: its number with and without zeros, its module, its name."""
        number = self.number
        words = [self.name, self.name.split("/")[-1], self.module, number]
        if number is not None:
            words.append(str(int(number)))
        return [word for word in words if word]


def course_path():
    """The path of course.toml: among the lessons' text of a checkout, else in the library's assets."""
    checkout = checkout_dir()
    if checkout is not None and (checkout / "notebooks" / "source" / "course.toml").exists():
        return checkout / "notebooks" / "source" / "course.toml"
    return library_dir() / "assets" / "course.toml"


def read_course(path=None):
    """All pages, in reading order.

    Raises: ValueError where a description is not as it should be.
    """
    path = path or course_path()
    described = tomllib.loads(path.read_text(encoding="utf-8"))
    pages = []
    for entry in described["page"]:
        try:
            page = Page(**entry)
        except TypeError as error:
            raise ValueError(f"{path}: page {entry.get('name')!r}: {error}") from None
        if page.layer not in LAYERS:
            raise ValueError(
                f"{path}: the layer of {page.name} is {page.layer!r}: one of {', '.join(LAYERS)}"
            )
        pages.append(page)
    for attribute in ("name", "module", "number"):
        values = [
            getattr(page, attribute) for page in pages if getattr(page, attribute) is not None
        ]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(
                f"{path}: two pages have the {attribute} {twice[0]!r}; each needs its own"
            )
    return pages


def import_order(pages):
    """Pages in the order in which their modules may import one another: base, lessons, appendix."""
    return sorted(pages, key=lambda page: LAYERS.index(page.layer))


def page_of_module(module, pages=None):
    """The page that makes a module. Raises: KeyError where none does."""
    for page in read_course() if pages is None else pages:
        if page.module == module:
            return page
    raise KeyError(f"no page makes the module {module!r}")
