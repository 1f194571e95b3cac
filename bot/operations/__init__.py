"""What Stoker does, durably: each request is one operation, carried by docket tasks over any number of restarts.

life.py     request, vote, cancel, expire; what happens when an operation fails
gpu.py      bring up, bring down
change.py   add and swap: pull request, roll out
smoke.py    the smoke tests
tasks.py    the docket tasks, which carry an operation's id and nothing else
"""
