"""The servers of an organization: finding, showing, changing, and where their secrets may go.

Use cases: `crud`, `grid`, `inspection`.
"""
