"""The documentation as a site: every example is run, and what it prints now is what the page shows.

`./dev site [DIRECTORY]` builds it, by default in site/. Exit status: 1 when an example prints something else than the
page has, made with the same releases, or the generator warns of anything.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.oracle.sysroots import cache
from tools.examples import ROOT, Stage, examples, recorded, stage, versions, written
from tools.registries import UnreachedError

OUTSIDE = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages that stand above docs/ -> their names in the site."""
CONFIGURATION = """
project = "dlwhy"
extensions = ["myst_parser"]
myst_heading_anchors = 6
html_theme = "furo"
html_title = "dlwhy, the dynamic-linker detective"
html_show_copyright = html_copy_source = False
"""


def sources(folder: Path, place: Stage | None) -> list[str]:
    """Write the pages into a folder, with the examples run anew in `place`; return what differs from the pages."""
    wrong = []
    paths = {ROOT / name: folder / new for name, new in OUTSIDE.items()}
    paths |= {path: folder / path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*") if path.is_file()}
    same = recorded() == versions()
    for path, target in paths.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".md":
            target.write_bytes(path.read_bytes())
            continue
        text = path.read_text("utf-8")
        if place is not None:
            made = written(text, place)
            pairs = zip(examples(text), examples(made), strict=True)
            name = path.relative_to(ROOT)
            differ = [old for old, new in pairs if old != new and not old.timed and (same or old.anywhere)]
            wrong += [f"{name}: {one.command}" for one in differ]
            text = made
        target.write_text(_page(text, path), "utf-8")
    (folder / "conf.py").write_text(CONFIGURATION, "utf-8")
    return wrong


def _page(text: str, path: Path) -> str:
    """Return a page as the generator wants it: links to where the site has the pages, and an index that lists them."""
    if path.parent == ROOT:
        text = re.sub(r"\]\(docs/", "](", text)
        text = re.sub(r"\[([^]]+)\]\((?:LICENSE|examples/[\w./-]*)\)", r"\1", text)  # what is no page
    up = "../" * (len(path.relative_to(ROOT / "docs").parts) - 1) if path.is_relative_to(ROOT / "docs") else ""
    for name, new in OUTSIDE.items():
        text = re.sub(rf"\]\((?:\.\./)*{name}", f"]({up}{new}", text)
    text = text.replace("```console timed\n", "```console\n")
    if path.name == "index.md":
        linked = re.findall(r"\]\(([\w/-]+)\.md\)", text)
        listed = dict.fromkeys([*linked, *(new.removesuffix(".md") for new in OUTSIDE.values())])
        text += "\n```{toctree}\n:hidden:\n\n" + "\n".join(listed) + "\n```\n"
    return text


def build(target: Path, run: bool = True) -> list[str]:
    """Build the site; return what is wrong with it, a line each. Without `run` the examples stay as pages have them."""
    with tempfile.TemporaryDirectory() as folder:
        if run:
            with stage(cache()) as place:
                wrong = sources(Path(folder), place)
        else:
            wrong = sources(Path(folder), None)
        words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", folder, str(target)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    return wrong + done.stderr.splitlines()


def main(words: list[str]) -> int:
    """Build the site and say what is wrong with it."""
    try:
        wrong = build(Path(words[0] if words else "site"))
    except (ChildProcessError, UnreachedError) as error:  # an example that cannot be run
        wrong = [str(error)]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
