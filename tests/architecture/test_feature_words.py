"""One word for a feature in every layer: page, blueprint, API, service, templates, form, test."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from portal.app import create_app
from tests.conftest import make_settings

ROOT = Path(__file__).resolve().parents[2]
FEATURES = (
    "access_groups",
    "audit",
    "connections",
    "credentials",
    "discover",
    "drafts",
    "explain",
    "grid",
    "health",
    "hub",
    "import_export",
    "keys",
    "oauth_check",
    "openapi",
    "pickers",
    "playground",
    "registry",
    "review_queue",
    "server_tools",
    "servers",
    "settings",
    "submissions",
    "teams",
    "tool_changes",
    "toolsets",
    "users",
)
PLACES = {
    "page": ("portal/web/pages/{word}.py", "portal/web/pages/servers/{word}.py"),
    "API": ("portal/web/api/{word}.py",),
    "service": (
        "portal/services/{word}/__init__.py",
        "portal/services/{word}.py",
        "portal/services/*/{word}.py",
    ),
    "templates": ("templates/{word}/*.html",),
    "form": ("portal/web/forms/{word}.py",),
    "test": tuple(
        f"tests/{floor}/**/test_{{word}}{end}.py"
        for floor in ("web/api", "web/pages", "web/oauth", "services")
        for end in ("", "_*")
    ),
}
"""Where the files of a feature lie."""

EXCEPTIONS: dict[tuple[str, str], tuple[str, str]] = {
    ("audit", "form"): ("", "its filters are read from the address"),
    ("connections", "page"): (
        "portal/web/oauth/connections.py",
        "it leads out to a provider and back, and stands beside what else redirects",
    ),
    ("connections", "form"): ("", "there is a button and nothing to type"),
    ("credentials", "form"): ("", "its fields are those that each server declares"),
    ("discover", "form"): ("", "its filters are read from the address"),
    ("drafts", "templates"): ("templates/servers/edit.html", "a draft is the form of a server"),
    ("drafts", "form"): ("portal/web/forms/servers.py", "a draft is the form of a server"),
    ("explain", "form"): ("portal/web/forms/pickers.py", "it is find boxes and nothing else"),
    ("grid", "API"): ("portal/web/api/servers.py", "programs read the list of servers"),
    ("grid", "form"): ("", "its filters are read from the address"),
    ("health", "API"): ("portal/web/api/servers.py", "LiteLLM has it below its list of servers"),
    ("health", "form"): ("", "there is a button and nothing to type"),
    ("health", "test"): (
        "tests/web/api/test_servers_reading.py",
        "it is read with the rest of a server",
    ),
    ("hub", "API"): ("portal/web/api/registry.py", "the hub is the registry for people"),
    ("hub", "service"): ("portal/services/catalog/registry.py", "as above"),
    ("hub", "form"): ("", "its search is read from the address"),
    ("hub", "test"): (
        "tests/web/pages/test_import_export.py",
        "a server is listed publicly there, and then looked at in the hub",
    ),
    ("import_export", "service"): (
        "portal/services/catalog/imports.py",
        "`imports` and `exports` are files of their own",
    ),
    ("oauth_check", "form"): ("", "there is a button and nothing to type"),
    ("pickers", "API"): ("", "programs know whom they mean"),
    ("playground", "API"): ("portal/web/api/tools.py", "LiteLLM’s API lists and calls tools"),
    ("playground", "service"): ("portal/services/tools/calls.py", "both call tools"),
    ("playground", "form"): (
        "portal/web/tool_forms.py",
        "its fields are made from a tool’s schema",
    ),
    ("playground", "test"): ("tests/web/test_tool_forms.py", "as above"),
    ("registry", "templates"): ("templates/hub/index.html", "the hub is the registry for people"),
    ("registry", "form"): ("", "there is a button and nothing to type"),
    ("server_tools", "API"): ("portal/web/api/tools.py", "LiteLLM’s API lists and calls tools"),
    ("server_tools", "service"): (
        "portal/services/tools/calls.py",
        "below `tools/` they are calls",
    ),
    ("settings", "service"): (
        "portal/services/instance_settings.py",
        "`portal/settings.py` are those of the operator",
    ),
    ("tool_changes", "form"): ("", "what is accepted was shown, not typed"),
}
"""What is elsewhere, or (with a blank path) nowhere, and why."""
BESIDES = {
    "accounts": "signing in, and one's own profile",
    "api_docs": "the API to read",
    "components": "macros that pages share",
    "errors": "what is said when something went wrong",
    "layouts": "frames around pages",
    "oauth": "pages on the way to and from MCP clients and providers",
    "old_addresses": "leads on from LiteLLM's addresses",
}
"""Pages and templates that belong to no feature."""
APIS_BESIDES = {
    "document": "the OpenAPI document",
    "me": "who asks",
    "tools": "lists and calls tools, as LiteLLM does",
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The application, whose database nobody asks."""
    app = create_app(make_settings(f"sqlite:///{tmp_path_factory.mktemp('words') / 'portal.db'}"))
    yield app
    app.extensions["database"].engine.dispose()


def files(word: str, place: str) -> list[Path]:
    return [
        path for pattern in PLACES[place] for path in sorted(ROOT.glob(pattern.format(word=word)))
    ]


def blueprints(app: Flask, package: str) -> dict[str, str]:
    """The blueprints whose handlers lie in `package`: module, name."""
    return {
        blueprint.import_name.rpartition(".")[2]: name
        for name, blueprint in app.blueprints.items()
        if blueprint.import_name.startswith(f"{package}.")
    }


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("word", FEATURES)
def test_a_feature_has_its_word_in_every_place(word: str, place: str) -> None:
    found = files(word, place)
    if (word, place) not in EXCEPTIONS:
        assert found, f"no {place} of {word}"
        return
    instead, reason = EXCEPTIONS[word, place]
    assert not found, f"the {place} of {word} is no exception any more"
    assert reason
    assert not instead or (ROOT / instead).is_file()


def test_exceptions_are_of_features_and_places() -> None:
    assert [key for key in EXCEPTIONS if key[0] not in FEATURES or key[1] not in PLACES] == []


def test_a_blueprint_of_pages_has_the_word_of_its_file(app: Flask) -> None:
    found = blueprints(app, "portal.web.pages")
    assert {module: name for module, name in found.items() if module != name} == {}
    elsewhere = {word for word in FEATURES if (word, "page") in EXCEPTIONS}
    without = {"drafts"}  # what the form of a server does with a draft; it has no address
    assert set(found) == (set(FEATURES) - elsewhere - without) | (set(found) & set(BESIDES))
    assert elsewhere <= set(app.blueprints)


def test_a_blueprint_of_the_api_has_the_word_of_its_file(app: Flask) -> None:
    found = blueprints(app, "portal.web.api")
    assert {module: name for module, name in found.items() if name != f"api_{module}"} == {}
    features = {word for word in FEATURES if (word, "API") not in EXCEPTIONS}
    assert set(found) == features | set(APIS_BESIDES)


def test_an_endpoint_lies_in_the_file_of_its_word(app: Flask) -> None:
    """No handler hangs on the blueprint of another file."""
    wrong = [
        endpoint
        for endpoint, view in app.view_functions.items()
        if "." in endpoint
        and app.blueprints[endpoint.partition(".")[0]].import_name != view.__module__
    ]
    assert wrong == []


def test_a_page_shows_templates_of_its_word() -> None:
    shown = re.compile(r'"(\w+)/\w+\.html"')
    wrong = {
        word
        for word in FEATURES
        if (word, "page") not in EXCEPTIONS and (word, "templates") not in EXCEPTIONS
        for page in files(word, "page")
        if word not in shown.findall(page.read_text())
    }
    assert wrong == set()


def test_a_folder_of_templates_bears_the_word_of_a_feature() -> None:
    folders = {path.parent.name for path in (ROOT / "templates").rglob("*.html")}
    assert folders - set(BESIDES) - set(FEATURES) == set()


def test_a_form_bears_the_word_of_a_feature() -> None:
    """Or is one of those that forms share."""
    shared = {"__init__", "base", "logos", "prefill", "typed"}
    names = {path.stem for path in (ROOT / "portal" / "web" / "forms").glob("*.py")}
    assert names - shared - set(BESIDES) - set(FEATURES) == set()
