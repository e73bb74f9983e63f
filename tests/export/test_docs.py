"""What docs/serving.md says of configurations, flags and files is so."""

import pathlib
import re

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def test_the_configuration_is_one_that_the_server_reads():
    (block,) = re.findall(r"```proto\n(.*?)```", TEXT, flags=re.DOTALL)
    config = text_format.Parse(
        block, model_server_config_pb2.ModelServerConfig()
    )
    (model,) = config.model_config_list.config
    versions = list(model.model_version_policy.specific.versions)
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}
    assert set(model.version_labels.values()) <= set(versions)


def test_the_client_has_the_flags():
    client = (ROOT / "examples" / "serving_client.py").read_text("utf-8")
    lines = re.findall(r"examples/serving_client\.py (.*)", TEXT)
    used = {flag for line in lines for flag in re.findall(r"--(\w+)", line)}
    defined = set(re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', client))
    assert used
    assert used <= defined


def test_a_version_holds_the_files_of_the_table(grown_version):
    table = TEXT.split("| file | what |")[1].split("\n\n")[0]
    named = [
        name
        for row in table.splitlines()[2:]
        for name in re.findall(r"`([^`]+)`", row.split("|")[1])
    ]
    assert len(named) == 6
    named.remove("assets.extra/report.json")  # of a task, and there was none
    assert all((grown_version / name.rstrip("/")).exists() for name in named)
