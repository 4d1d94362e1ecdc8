"""The portal's use cases, in packages that import only downwards:

    operations | oauth_broker
    credentials
    drafts | tools
    catalog | submissions | upstreams | access
    servers
    oauth_client
    secrets
    instance_settings
    audit
    runtime, paging, unique, admins

A use case is a function that takes the database session and the caller, and asks the authorization
module for permission. The docstring of each package lists its modules with use cases. Its other
modules are helpers for the packages above it.
"""
