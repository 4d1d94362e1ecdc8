"""Request shapes of submissions and of decisions on them."""

from portal.web.api.payloads import Payload
from portal.web.api.shapes import Id, ServerBody, Text


class Wishes(Payload):
    """Fields that only an Admin decides. A Member's values are stored as requests."""

    is_public: bool | None = None
    approval_status: Text | None = None
    submitted_by: Text | None = None
    submitted_at: Text | None = None
    reviewed_by: Text | None = None
    reviewed_at: Text | None = None
    review_notes: Text | None = None


class SubmissionBody(Wishes, ServerBody):
    """A server submitted by a Member."""

    team_id: Id | None = None


class SubmissionChange(Wishes, ServerBody):
    """Changes to a submission by its submitter."""

    version: int | None = None


class Decision(Payload):
    """A decision on the version that the reviewer saw, or on the current one by default."""

    version: int | None = None


class Approval(Decision):
    """An approval. `keep_credentials` decides whether stored secrets are sent to a new host."""

    keep_credentials: bool | None = None


class Rejection(Decision):
    """A rejection. `only_change` declines a proposed change; the live server stays active."""

    review_notes: Text | None = None
    only_change: bool = False
