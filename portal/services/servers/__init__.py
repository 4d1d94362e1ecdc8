"""The servers of an organization: finding, showing and changing them, and where secrets may go.

Use cases: `crud`, `grid`, `inspection`.
"""
