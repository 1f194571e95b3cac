# Everything has one clock, here 120 times faster than real time: a session of two hours lasts one minute, and costs what two hours cost.
given clock 120x
given idle.remind_after 3h
given idle.down_after 4h

@dev /gpu up coder-chat for 2h because demo
expect "2 h and about 20 min of boot and drain, at $0.85/h"
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect not "Receipt" within 30s
expect "the lease of coder-chat ends" within 60s
expect "Receipt" within 60s
expect "Receipt: up 2 h" within 5s
expect "the node billed" within 60s
