"""What the portal does, as a stack of packages that only import downwards:

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

A use case is a function that is told the session and who asks, and asks the authorization module.
The docstring of a package names its modules with use cases; the others are for the packages above
it.
"""
