"""One cluster for all of these tests. What they need of people is that of every test: Ada, Mel,
their team and keys."""

import json
from collections.abc import Iterator

import pytest

from portal.app import open_database
from portal.settings import read_settings
from portal.store.database import Database
from tests.conftest import add_people
from tests.support.cluster.topology import Cluster, cluster
from tests.support.oauth.forging import forging_server

ADMIN_KEY = "sk-cluster-bootstrap-key-0001"


@pytest.fixture(scope="session")
def running() -> Iterator[Cluster]:
    """The cluster. Dana signs in by SSO there, and is Admin by her group."""
    with forging_server() as provider:  # an honest one here, which knows no redirect URI beforehand
        provider.claims |= {
            "sub": "dana",
            "email": "dana@example.com",
            "name": "Dana",
            "groups": ["mcp-admins"],
        }
        corp = {
            "name": "corp",
            "issuer": provider.issuer,
            "client_id": provider.client_id,
            "client_secret": provider.client_secret,
            "roles": {"mcp-admins": "proxy_admin"},
        }
        with cluster(
            PORTAL_SIGN_IN_PROVIDERS=json.dumps([corp]),
            PORTAL_BOOTSTRAP_API_KEY=ADMIN_KEY,
            PORTAL_CHEAP_HASHING="true",
            PORTAL_METRICS="true",
        ) as started:
            yield started


@pytest.fixture(scope="session")
def database(running: Cluster) -> Iterator[Database]:
    """The cluster's database, with the people in it; `write` writes there, past the cluster's
    processes."""
    database = open_database(read_settings(running.environment))
    with database.session(writes=True) as session:
        add_people(session)
        session.commit()
    yield database
    database.engine.dispose()
