"""Makes the pages of the site that are not written by hand (mkdocs.yml)."""

import ast
import pathlib
import re

import griffe
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = "keras_incremental"
# Links of the repository that are other pages on the site.
LINKS = {"../README.md": "index.md", "../benchmarks/README.md": "benchmarks.md"}


def public_names(module=PACKAGE):
    """Returns `__all__` of a module of the package, without importing it."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if ast.unparse(node).startswith("__all__ = "):
            return ast.literal_eval(node.value)
    return []


def is_module(name):
    path = ROOT / PACKAGE / name
    return path.is_dir() or path.with_suffix(".py").is_file()


def api_pages():
    """Returns the text of each page of the API: the package, each module."""
    modules = [name for name in public_names() if is_module(name)]
    pages = {module: module_page(module) for module in modules}
    links, own = [], []
    for name in sorted(set(public_names()) - {*modules, "__version__"}):
        home = [m for m in modules if name in public_names(f"{PACKAGE}.{m}")]
        if home:
            links.append(f"[`{name}`][{PACKAGE}.{home[0]}.{name}]")
        else:
            own.append(name)
    text = (
        f"# keras_incremental\n\n`import keras_incremental as ki`\n\n"
        f"`ki` has these as well: {', '.join(links)}.\n\n"
        f"::: {PACKAGE}\n    options:\n      members: {own}\n"
        "      inherited_members: true\n"
    )
    return {"index": text} | pages


def module_page(module):
    """Returns the page of a module.

    A function hides the file of the same name that it is in: it is named.
    """
    lines = [f"# ki.{module}", f"::: {PACKAGE}.{module}"]
    for name in public_names(f"{PACKAGE}.{module}"):
        if (ROOT / PACKAGE / module / f"{name}.py").is_file():
            options = "    options:\n      show_root_heading: true"
            path = f"{PACKAGE}.{module}.{name}.{name}"
            lines.append(f"::: {path}\n{options}")
    return "\n\n".join(lines) + "\n"


def on_config(config):
    pages = [
        {name: f"api/{name}.md"} for name in api_pages() if name != "index"
    ]
    config.nav.append({"API": ["api/index.md", *pages]})
    return config


def on_files(files, config):
    for name, text in api_pages().items():
        files.append(File.generated(config, f"api/{name}.md", content=text))
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "benchmarks.md", content=text))
    return files


def on_page_markdown(markdown, **_):
    for link, page in LINKS.items():
        markdown = markdown.replace(f"]({link}", f"]({page}")
    return markdown


class Examples(griffe.Extension):
    """Shows the examples of docstrings as code."""

    def on_instance(self, *, obj, **_):
        if obj.docstring and not obj.is_alias:
            obj.docstring.value = re.sub(
                r"^>>> .*(?:\n.+)*",
                lambda found: f"```pycon\n{found[0]}\n```",
                obj.docstring.value,
                flags=re.M,
            )
