"""The documentation site has every public name, and how-tos in two clicks."""

import importlib.util
import pathlib
import re
import subprocess
import sys
import types
import zlib

import pytest

import keras_incremental as ki

ROOT = pathlib.Path(__file__).parents[1]
HOOKS = ROOT / "docs" / "hooks.py"


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", HOOKS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public_names():
    """Yields names that are in no module, and those of each module."""
    members = {"__version__"}
    for name in ki.__all__:
        thing = getattr(ki, name)
        if isinstance(thing, types.ModuleType):
            members |= {name, *thing.__all__}
            yield from (f"{ki.__name__}.{name}.{m}" for m in thing.__all__)
    yield from (f"{ki.__name__}.{m}" for m in set(ki.__all__) - members)


def test_each_public_module_has_a_page(hooks):
    modules = {
        name
        for name in ki.__all__
        if isinstance(getattr(ki, name), types.ModuleType)
    }
    assert hooks.api_pages().keys() == modules | {"index"}


def test_names_of_the_package_itself_are_on_its_page_or_linked(hooks):
    page = hooks.api_pages()["index"]
    assert "'IncrementalClassifier'" in page
    assert "[`EEIL`][keras_incremental.methods.EEIL]" in page


def test_examples_of_docstrings_become_code(hooks):
    docstring = types.SimpleNamespace(value="Adds.\n\n>>> 1 + 1\n2\n\nMore.")
    thing = types.SimpleNamespace(docstring=docstring, is_alias=False)
    hooks.Examples().on_instance(obj=thing)
    expected = "Adds.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nMore."
    assert docstring.value == expected


def test_the_first_page_links_every_how_to():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in ROOT.glob("docs/howto/*.md")}
    assert set(re.findall(r"\(howto/(\w+\.md)\)", index)) == pages
    assert len(pages) == 7


def test_nothing_is_fetched_while_a_page_is_read():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in text
    assert not re.search(r"https?://", text)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_has_all_public_names(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    result = subprocess.run(
        [*command, "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    inventory = (tmp_path / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(inventory).decode().splitlines()
    names = {line.split()[0] for line in lines}
    # A function in a file of its own name is documented as that file's.
    names |= {re.sub(r"\.(\w+)\.\1$", r".\1", name) for name in names}
    assert not set(public_names()) - names
    scripts = [
        source
        for page in tmp_path.rglob("*.html")
        for source in re.findall(r'src="([^"]+)"', page.read_text("utf-8"))
    ]
    assert scripts
    assert not [s for s in scripts if s.startswith(("http", "//"))]
