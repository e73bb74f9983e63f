"""What docs/extending.md shows can be run as it stands."""

import pathlib
import re

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "extending.md"


def test_the_code_of_the_page_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.S)
    namespace = {}
    for block in blocks:
        exec(compile(block, str(DOCS), "exec"), namespace)
    assert "accuracy" in capsys.readouterr().out
    assert namespace["model"].num_classes == 10
