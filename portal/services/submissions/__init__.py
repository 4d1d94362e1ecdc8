"""Submissions of Members, changes to them, and the review queue of Admins.

Use cases: `decisions`, `review_queue`, `submit`.
"""
