# Everything has one clock, here 120 times faster than real time: a session of one hour lasts half a minute, and costs what one hour costs.
given clock 120x
given idle.remind_after 3h
given idle.down_after 4h

@dev /gpu up coder-chat for 1h because demo
expect "1 h and about 20 min of boot and drain, at $0.85/h"
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect not "Receipt" within 10s
expect "the lease of coder-chat ends" within 60s
expect "Receipt" within 60s
expect "Receipt: up 1 h" within 5s
expect "the node billed" within 60s
