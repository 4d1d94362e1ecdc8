"""The permission that whole parts of the API ask for, before anything of a request is read."""

from flask import Blueprint, g, request

from portal import authorization as authz
from portal.authorization import Action

_READS = ("GET", "HEAD", "OPTIONS")


def guard(blueprint: Blueprint, *, read: Action, write: Action) -> None:
    """Let nobody into `blueprint` who may not `read`, or for a change `write`: 403 comes before 422
    and 404."""

    @blueprint.before_request
    def _require() -> None:
        authz.require(g.principal, read if request.method in _READS else write)
