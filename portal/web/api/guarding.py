"""Permission checks for whole API blueprints, before the request is read."""

from flask import Blueprint, g, request

from portal import authorization as authz
from portal.authorization import Action

_READS = ("GET", "HEAD", "OPTIONS")


def guard(blueprint: Blueprint, *, read: Action, write: Action) -> None:
    """Require the action `read`, or `write` for changes, on all routes of a blueprint.

    The check runs first, so 403 takes precedence over 422 and 404.
    """

    @blueprint.before_request
    def _require() -> None:
        authz.require(g.principal, read if request.method in _READS else write)
