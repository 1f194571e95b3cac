# A benchmark: a Job in the cluster puts the model under load, and Stoker posts a table, a chart and a report. A bring-down deletes the Job.
given speed 300
given bench.each 2s

@dev /model bench coder-chat
expect "coder-chat is not up under a lease" within 30s
@dev /gpu up coder-chat because which context fits best
@lead clicks "Approve"
expect "all smoke tests passed" within 60s

@dev /model bench coder-chat
expect "measuring" within 60s
expect "coder-chat generates up to" within 60s
expect "first token, ms"
expect "[file Benchmark of coder-chat]" within 30s
@dev clicks "Open a pull request"
expect "A pull request adds this result" within 60s

@lead /model bench coder-chat
expect "measuring" within 60s
@dev /gpu down
expect "coder-chat went down during the benchmark" within 60s
expect "Its Job is deleted." within 60s
expect "is down and the GPU is free" within 60s
