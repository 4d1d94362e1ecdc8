"""What Members propose and Admins decide: submissions, changes, the review queue.

Use cases: `decisions`, `review_queue`, `submit`.
"""
