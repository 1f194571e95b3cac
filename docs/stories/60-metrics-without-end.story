# Metrics that are not numbers, or never end: the model counts as in use, and goes down at the end of its lease.
given speed 300
given lease.warn_before 1s
given idle.sample_every 1s

@dev /gpu up coder-chat for 12s because demo
expect "Approve" within 15s
break metrics-nan
@lead clicks "Approve"
expect "is up and answers" within 90s
@dev /gpu status
expect "coder-chat" within 10s
mend metrics-nan
break metrics-drip
@dev /gpu status
expect "coder-chat" within 10s
expect replicas coder-chat 0 within 60s
expect "is down and the GPU is free" within 60s

@dev /gpu up coder-chat for 1h because demo
expect "Approve" within 15s
@lead clicks "Approve"
expect "is up and answers" within 90s
mend metrics-drip
break metrics-huge
wait 1s
@dev /gpu down coder-chat
expect replicas coder-chat 0 within 30s
