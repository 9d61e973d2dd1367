"""Whether a built site is whole: every link leads somewhere, and nothing is loaded from another address."""

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes whose address the browser loads by itself; of <a href> it loads nothing.
LOADED = {"src", "srcset", "poster", "data"}
LOADED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "manifest"}
CSS_ADDRESS = re.compile(r"url\(\s*['\"]?([^'\")]+)['\"]?\s*\)|@import\s+['\"]([^'\"]+)")
SHARED = "_static"


class PageLinks(HTMLParser):
    """The addresses of a page: `links` that a reader follows, `loads` that the browser fetches; and its anchors."""

    def __init__(self, html):
        super().__init__()
        self.links = []
        self.loads = []
        self.anchors = {"", "top"}
        self.in_style = False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.in_style = tag == "style"
        for name in ("id", "name"):
            if values.get(name):
                self.anchors.add(values[name])
        if tag == "link":
            if set(values.get("rel", "").split()) & LOADED_LINKS:
                self.loads.append(values["href"])
            else:
                self.links.append(values.get("href", ""))
        elif values.get("href") is not None:
            self.links.append(values["href"])
        if values.get("action"):
            self.links.append(values["action"])
        for name in LOADED & values.keys():
            self.loads += loaded_addresses(name, values[name])
        self.loads += css_addresses(values.get("style", ""))

    def handle_endtag(self, tag):
        if tag == "style":
            self.in_style = False

    def handle_data(self, data):
        if self.in_style:
            self.loads += css_addresses(data)


def loaded_addresses(attribute, value):
    """The addresses in an attribute; `srcset` holds several, each with a width."""
    if not value:
        return []
    if attribute == "srcset":
        return [part.split()[0] for part in value.split(",") if part.strip()]
    return [value]


def css_addresses(text):
    """The addresses that CSS loads."""
    if not text:
        return []
    return [one if one else other for one, other in CSS_ADDRESS.findall(text)]


def is_elsewhere(address):
    """Whether an address leaves the site: another host, or mail."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in {"http", "https", "mailto"}


def site_faults(folder):
    """What is wrong with the links of a built site, one sentence each."""
    folder = Path(folder).resolve()

    @cache
    def page(path):
        return PageLinks(path.read_text(encoding="utf-8"))

    faults = []
    for path in sorted(folder.rglob("*.html")):
        name = path.relative_to(folder).as_posix()
        for address in page(path).loads:
            if is_elsewhere(address):
                faults.append(f"{name}: loads {address}, which is not on the site")
        for address in dict.fromkeys([*page(path).links, *page(path).loads]):
            faults += [f"{name}: {fault}" for fault in link_faults(folder, path, address, page)]
    for path in sorted(folder.rglob("*.css")):
        name = path.relative_to(folder).as_posix()
        for address in css_addresses(path.read_text(encoding="utf-8")):
            if is_elsewhere(address):
                faults.append(f"{name}: loads {address}, which is not on the site")
            faults += [f"{name}: {fault}" for fault in link_faults(folder, path, address, page)]
    return faults


def link_faults(folder, path, address, page):
    """What is wrong with one address on the page at this path. page(path): its PageLinks."""
    parts = urlsplit(address)
    if is_elsewhere(address) or parts.scheme in {"data", "javascript", "blob"}:
        return
    target = path
    if parts.path.startswith("/"):
        # Published below an address such as owner.github.io/name, it would lead out of the site.
        yield f"the link {address} begins with a slash"
        return
    if parts.path:
        target = (path.parent / unquote(parts.path)).resolve()
        if target.is_dir():
            target = target / "index.html"
    if not target.is_relative_to(folder) or not target.is_file():
        yield f"the link {address} leads nowhere"
        return
    # viewcode and the search page are HTML, too; a fragment of a picture or a style is no anchor.
    if target.suffix == ".html" and unquote(parts.fragment) not in page(target).anchors:
        yield f"the link {address} leads to an anchor that is not there"


def page_weights(folder):
    """({page: bytes of it and of what it alone loads}, bytes of what all pages share) of a built site."""
    folder = Path(folder).resolve()
    weights = {}
    shared = set()
    for path in sorted(folder.rglob("*.html")):
        own = {path}
        for address in PageLinks(path.read_text(encoding="utf-8")).loads:
            if urlsplit(address).scheme:
                continue  # data: lies in the page itself
            target = (path.parent / unquote(urlsplit(address).path)).resolve()
            if not target.is_file() or target.suffix == ".html":
                continue
            if target.relative_to(folder).parts[0] == SHARED:
                shared.add(target)
            else:
                own.add(target)
        name = path.relative_to(folder).as_posix()
        weights[name] = sum(file.stat().st_size for file in own)
    return weights, sum(file.stat().st_size for file in shared)


def describe_weights(weights, shared):
    """The heaviest pages in words."""
    lines = [f"shared by all pages: {shared / 1e6:.2f} MB"]
    for name in sorted(weights, key=weights.get, reverse=True)[:5]:
        lines.append(f"{name}: {weights[name] / 1e6:.2f} MB")
    return "\n".join(lines)
