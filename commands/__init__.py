"""Slack listeners, one module per feature: parse, decide, enqueue, answer."""
