"""Pages of the documentation site that are made from other files of the repository.

mkdocs calls ``on_files`` and ``on_page_markdown`` (``hooks`` in mkdocs.yml). Model cards, result
tables and the repository's own pages are not copied into docs/: they are read where they are, and
links to them from docs/ are pointed at their page of the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent

# Page of the site -> file of the repository.
PAGES = {
    "security.md": "SECURITY.md",
    "contributing.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
    "models/toybox-diffusion.md": "src/understudy/weights/toybox-diffusion/README.md",
    "models/toybox-flow.md": "src/understudy/weights/toybox-flow/README.md",
    "models/examiner.md": "src/understudy/weights/examiner/README.md",
    "models/toybox-gan.md": "src/understudy/weights/toybox-gan/README.md",
    "results/gan_fid.md": "benchmarks/results/gan_fid.md",
}
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)#\s]+)(#[^)\s]*)?\)")

# Modules of the Python reference, in the order a user meets them.
MODULES = {
    "Values and errors": ["errors", "concept.value", "invert.inversion", "drag.session"],
    "Models": ["models.interface", "models.registry", "generators.interface"],
    "Pictures": ["pictures.tensors", "pictures.recipe"],
    "Verbs": ["learn", "invert", "swap", "edit", "generate", "project", "drag"],
    "Diffusion and attention": ["diffusion.sampler", "diffusion.words", "attention"],
    "The toy world": ["toybox"],
}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    files.append(File.generated(config, "reference/cli.md", content=command_pages()))
    files.append(File.generated(config, "reference/python.md", content=module_pages()))
    # Pictures that those pages show.
    for page, source in PAGES.items():
        for _, target, _ in LINK.findall((ROOT / source).read_text()):
            picture = (ROOT / source).parent / target
            if picture.suffix in {".jpg", ".png"} and picture.is_file():
                name = normpath(f"{dirname(page)}/{target}")
                files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to repository files lead to their page of the site, or become plain text."""
    here = page.file.src_uri
    source = PAGES.get(here, f"docs/{here}")
    pages = {file: site for site, file in PAGES.items()}

    def pointed(match: re.Match[str]) -> str:
        label, target, anchor = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = normpath(f"{dirname(source)}/{target}")
        wanted = pages.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if wanted and files.get_file_from_path(wanted):
            return f"{label}({relpath(wanted, dirname(here) or '.')}{anchor or ''})"
        if (ROOT / path).exists() and not path.startswith("docs/") and not label.startswith("!"):
            return f"{label[1:-1]} (`{path}` in the repository)"
        return match[0]  # mkdocs reports it if it leads nowhere

    return LINK.sub(pointed, markdown)


def command_pages() -> str:
    """docs/cli.txt, one heading a command."""
    lines = ["# Command line", "", "This page is generated from `understudy --help`.", ""]
    for part in (ROOT / "docs/cli.txt").read_text().split("$ ")[1:]:
        command, _, text = part.partition("\n")
        name = command.removesuffix("--help").strip()
        lines += [f"## {name}", "", "```text", text.strip(), "```", ""]
    return "\n".join(lines)


def module_pages() -> str:
    lines = ["# Python", "", "This page is generated from the docstrings.", ""]
    for title, modules in MODULES.items():
        lines += [f"## {title}", ""]
        for module in modules:
            lines += [f"::: understudy.{module}", "    options:", "      heading_level: 3", ""]
    return "\n".join(lines)
