"""The version stands in pyproject.toml alone; everything that tells it reads it from there."""

import re
import tomllib

from click.testing import CliRunner
from flask import Flask

from portal.cli import main
from portal.resources import portal_version
from portal.web import openapi
from tests.support.peers import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_the_installed_package_has_it() -> None:
    assert portal_version() == VERSION


def test_the_command_tells_it() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"portal, version {VERSION}\n"


def test_the_api_document_tells_it(app: Flask) -> None:
    with app.test_request_context():
        assert openapi.document(app)["info"]["version"] == VERSION


def test_mcp_servers_and_upstreams_are_told_it() -> None:
    from portal.upstream import oauth_discovery

    assert oauth_discovery._INITIALIZE["params"]["clientInfo"] == {
        "name": "mcp-portal",
        "version": VERSION,
    }


def test_it_is_the_newest_release_of_the_change_log() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (\S+)(?: – (\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == VERSION
    assert headings[1][1], "a release has a date"


def test_the_manifests_of_kubernetes_run_it() -> None:
    images = re.findall(
        r"image: \S+/mcp-portal:(\S+)",
        "".join(p.read_text() for p in (ROOT / "deploy/kubernetes").glob("*.yaml")),
    )
    assert images
    assert set(images) == {VERSION}


def test_no_code_repeats_it() -> None:
    for path in (ROOT / "portal").rglob("*.py"):
        assert f'"{VERSION}"' not in path.read_text(encoding="utf-8"), path
