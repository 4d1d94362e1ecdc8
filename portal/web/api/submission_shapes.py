"""The shapes of submissions and of decisions about them."""

from portal.web.api.payloads import Payload
from portal.web.api.shapes import Id, ServerBody, Text


class Wishes(Payload):
    """What a Member may send and an Admin decides; it is taken down as a wish."""

    is_public: bool | None = None
    approval_status: Text | None = None
    submitted_by: Text | None = None
    submitted_at: Text | None = None
    reviewed_by: Text | None = None
    reviewed_at: Text | None = None
    review_notes: Text | None = None


class SubmissionBody(Wishes, ServerBody):
    """A server as a Member submits it."""

    team_id: Id | None = None


class SubmissionChange(Wishes, ServerBody):
    """A submission as its submitter mends it; the address names which one."""

    version: int | None = None


class Decision(Payload):
    """What the reviewer saw, as its version; without one, whatever is there is decided about."""

    version: int | None = None


class Approval(Decision):
    """An approval. `keep_credentials` says what becomes of stored secrets that the change would
    send elsewhere."""

    keep_credentials: bool | None = None


class Rejection(Decision):
    """A rejection. `only_change` declines the proposed change of a live server, which goes on."""

    review_notes: Text | None = None
    only_change: bool = False
