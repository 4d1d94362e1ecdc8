"""Static files are compressed and cached forever; the stylesheet consists of a file per layer."""

import gzip
import re
import shutil
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from portal import resources
from portal.web import assets
from tests.conftest import Client
from tests.support.html import parse as parse_page
from tests.support.styles import Rule, parse

FOLDER = resources.folder("static")
FOREVER = "public, max-age=31536000, immutable"
GZIP = {"Accept-Encoding": "gzip, deflate, br"}
TEXTS = ("app.js", "keep.js", "icons.svg", "vendor/htmx-2.0.11.min.js")


@pytest.fixture(scope="module")
def addresses() -> dict[str, str]:
    """The addresses of the static files, by name."""
    return dict(assets.init_app(bare(FOLDER)))


@pytest.fixture(scope="module")
def visitor() -> FlaskClient:
    """A client of an application that has only the static files."""
    app = bare(FOLDER)
    assets.init_app(app)
    return app.test_client()


def bare(folder: Path) -> Flask:
    return Flask("bare", static_folder=str(folder), static_url_path="/static")


def copied(folder: Path) -> Path:
    """Return a copy of the static files that a test may change."""
    return shutil.copytree(FOLDER, folder / "static")


def files_by_layer() -> dict[str, list[str | Rule]]:
    """Return what the file of each layer contains, without comments."""
    return {
        path.stem: [part for part in parse(path.read_text("utf-8")) if is_rule(part)]
        for path in (FOLDER / "styles").iterdir()
    }


def is_rule(part: str | Rule) -> bool:
    return isinstance(part, Rule) or not part.startswith("/*")


def test_every_file_is_a_layer_and_contains_only_its_rules() -> None:
    files = files_by_layer()
    assert set(files) == set(assets.LAYERS)
    for name, parts in files.items():
        assert [part.prelude for part in parts if isinstance(part, Rule)] == [f"@layer {name}"]
        assert len(parts) == 1, name


def test_the_stylesheet_names_the_order_of_layers_first_and_contains_all_their_rules() -> None:
    first, *layers = [part for part in parse(assets.stylesheet(FOLDER).decode()) if is_rule(part)]
    assert first == "@layer tokens, elements, layout, components, pages, utilities;"
    files = files_by_layer()
    assert layers == [rule for name in assets.LAYERS for rule in files[name]]


def test_the_address_of_the_stylesheet_changes_with_any_layer(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    seen = {assets.init_app(bare(folder))["portal.css"]}
    assert seen == {assets.init_app(bare(FOLDER))["portal.css"]}, "the same content, same address"
    for name in assets.LAYERS:
        with (folder / "styles" / f"{name}.css").open("a") as file:
            file.write("\n")
        seen.add(assets.init_app(bare(folder))["portal.css"])
    assert len(seen) == len(assets.LAYERS) + 1
    assert all(re.fullmatch(r"/static/portal\.[0-9a-f]{12}\.css", address) for address in seen)


def test_a_page_links_to_one_stylesheet_that_is_cached_forever(client: Client) -> None:
    asked = client(None)
    [link] = parse_page(asked.get("/login")).select("link[rel=stylesheet]")
    answer = asked.get(link["href"], headers=GZIP)
    assert gzip.decompress(answer.data) == assets.stylesheet(FOLDER)
    assert answer.headers["Cache-Control"] == FOREVER
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/static/portal.css", "/static/portal.css?v=56d6", "/static/portal.0123456789ab.css"]
)
def test_other_names_of_the_stylesheet_return_it_and_are_not_cached(
    visitor: FlaskClient, path: str
) -> None:
    """During an upgrade, pages of the version before it ask for the stylesheet with their hash."""
    answer = visitor.get(path)
    assert (answer.status_code, answer.data) == (200, assets.stylesheet(FOLDER))
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("name", ["keep.js", "icons.svg", "favicon.svg"])
@pytest.mark.parametrize("version", ["0123456789ab", "", "1", "none"])
def test_a_file_is_cached_forever_only_under_its_own_hash(
    visitor: FlaskClient, addresses: dict[str, str], name: str, version: str
) -> None:
    """During an upgrade, a page of the next version asks a process of this one for its files."""
    answer = visitor.get(f"/static/{name}?v={version}")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache")
    assert visitor.get(addresses[name]).headers["Cache-Control"] == FOREVER
    assert visitor.get(f"/static/{name}").headers["Cache-Control"] == "public, max-age=300"


@pytest.mark.parametrize(
    "path", ["/static/portal.x.css", "/static/portal.0123.css", "/static/styles/portal.css"]
)
def test_a_name_that_is_none_is_not_found(visitor: FlaskClient, path: str) -> None:
    assert visitor.get(path).status_code == 404


def test_an_answer_that_a_static_file_is_missing_is_not_cached(client: Client) -> None:
    answer = client(None).get("/static/missing.js?v=1")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (404, "no-store")


@pytest.mark.parametrize("name", ["portal.css", *TEXTS])
def test_a_text_leaves_compressed_where_the_client_accepts_it(
    visitor: FlaskClient, addresses: dict[str, str], name: str
) -> None:
    plain = visitor.get(addresses[name])
    packed = visitor.get(addresses[name], headers=GZIP)
    assert [encoding_of(answer) for answer in (plain, packed)] == [None, "gzip"]
    assert gzip.decompress(packed.data) == plain.data
    assert len(packed.data) < len(plain.data) / 2
    for answer in (plain, packed):
        assert answer.headers["Content-Length"] == str(len(answer.data))
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers["Cache-Control"] == FOREVER
    assert plain.headers["Content-Type"] == packed.headers["Content-Type"]


@pytest.mark.parametrize("accepted", ["br", "gzip;q=0", "gzip;q=0, *", "identity", ""])
def test_a_client_that_does_not_accept_gzip_gets_plain_text(
    visitor: FlaskClient, addresses: dict[str, str], accepted: str
) -> None:
    answer = visitor.get(addresses["portal.css"], headers={"Accept-Encoding": accepted})
    assert encoding_of(answer) is None
    assert answer.data == assets.stylesheet(FOLDER)


@pytest.mark.parametrize("name", ["portal.css", "app.js", "vendor/LICENSE-htmx"])
def test_a_client_that_has_the_content_gets_304(
    visitor: FlaskClient, addresses: dict[str, str], name: str
) -> None:
    seen = {}
    for headers in ({}, GZIP):
        tag = visitor.get(addresses[name], headers=headers).headers["ETag"]
        seen[tag] = headers
        again = visitor.get(addresses[name], headers={**headers, "If-None-Match": tag})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
        assert again.headers["Cache-Control"] == FOREVER
        other = visitor.get(addresses[name], headers={**headers, "If-None-Match": '"another"'})
        assert other.status_code == 200
    assert len(seen) == (1 if "LICENSE" in name else 2), "each encoding has a tag of its own"


def test_a_head_request_returns_the_headers_only(
    visitor: FlaskClient, addresses: dict[str, str]
) -> None:
    asked = visitor.get(addresses["portal.css"], headers=GZIP)
    answer = visitor.head(addresses["portal.css"], headers=GZIP)
    assert answer.data == b""
    for name in ("Content-Length", "Content-Encoding", "ETag", "Cache-Control"):
        assert answer.headers[name] == asked.headers[name]


def test_a_file_without_its_hash_is_cached_for_five_minutes(visitor: FlaskClient) -> None:
    for name in ("app.js", "favicon.svg", "vendor/README.md"):
        answer = visitor.get(f"/static/{name}")
        assert answer.headers["Cache-Control"] == "public, max-age=300"


def test_a_first_visit_loads_less_than_60_kb(client: Client) -> None:
    """Sign-in page, stylesheet, scripts and icons, as a browser gets them without a proxy."""
    asked = client(None)
    page = asked.get("/login")
    linked = parse_page(page).select("link[href], script[src], use[href]")
    paths = {(element.get("href") or element["src"]).partition("#")[0] for element in linked}
    answers = [page, *(asked.get(path, headers=GZIP) for path in paths)]
    assert {answer.status_code for answer in answers} == {200}
    assert sum(len(answer.data) for answer in answers) < 60_000


def encoding_of(answer: TestResponse) -> str | None:
    return answer.headers.get("Content-Encoding")
