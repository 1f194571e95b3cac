"""What Stoker does, durably: each request is one operation, carried by docket tasks over any number of restarts.

life.py      request, vote, cancel, expire; what happens when an operation fails
gpu.py       bring up; what was approved is what runs
questions.py what the holder of the GPU is asked, until it is answered or over
queue.py     waiting for the GPU: the line, the offers, the question to the holder
replace.py   room is made for another model, and given back when it fails
down.py      bring down
tenure.py    a lease before its end: prolonging it, breaking it
reconcile.py Redis, Deployments and pods compared and brought together
sampling.py  how much a model is used: a look at the metrics
receipt.py   what sessions cost: receipt, bill, report
endpoints.py the endpoints as the platform repo has them
proposal.py  from what was asked to the change, and the words of its pull request
pulls.py     an operation's pull request: proposed, followed, closed
rollout.py   from an approved pull request to a served model
keys.py      tenants' virtual keys and a new alias
smoke.py     the smoke tests
bench.py     a benchmark, and its report
home.py      App Home, kept up to date
tasks.py     the docket tasks, which carry an operation's id and nothing else
"""
