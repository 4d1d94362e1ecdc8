"""Identity and access: sign-in, sessions, users, teams, access groups, API keys.

Use cases: `access_groups`, `explain`, `impact`, `key_checks`, `key_reach`, `keys`, `me`, `pickers`,
`principals`, `sessions`, `sso`, `teams`, `users`.
"""
