"""What the pages of docs/ show runs as it stands, each page by itself."""

import pathlib
import re

import keras
import numpy as np
import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = [
    DOCS / "index.md",
    DOCS / "extending.md",
    *sorted(DOCS.glob("howto/*.md")),
]


def run(page):
    """Runs the Python blocks of a page, one after the other.

    The first page says nothing of where its images come from.
    """
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)
    assert blocks, f"{page} has no block of Python."
    names = {
        "new_images": np.zeros((20, 8, 8, 1), "uint8"),
        "new_labels": np.arange(20) % 2,
    }
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    return names


def write_photos(folder):
    random = np.random.default_rng(0)
    for name in ("daisy", "rose", "tulip", "violet"):
        (folder / name).mkdir(parents=True)
        for index in range(4):
            photo = random.uniform(0, 255, (40, 36, 3))
            keras.utils.save_img(folder / name / f"{index}.jpg", photo)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    assert run(page)["model"].built
