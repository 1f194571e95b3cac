"""Requests, plans, operations and leases, and their allowed changes. Frozen values, pure functions."""
