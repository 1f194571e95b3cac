"""What Stoker does, durably: each request is one operation, carried by docket tasks over any number of restarts.

life.py     request, vote, cancel, expire; what happens when an operation fails
gpu.py      bring up, bring down
proposal.py from what was asked to the change, and the words of its pull request
pulls.py    an operation's pull request: proposed, followed, closed
rollout.py  from an approved pull request to a served model
smoke.py    the smoke tests
tasks.py    the docket tasks, which carry an operation's id and nothing else
"""
