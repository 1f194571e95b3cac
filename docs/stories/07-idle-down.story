# Nobody answers the reminder or the announcement: Stoker brings the idle model down, because an unused GPU still costs money.
# The receipt estimates how long the node drains, and is corrected when the node is gone.
given speed 300
given idle.remind_after 4s
given idle.down_after 14s
given idle.announce_before 5s

@dev /gpu up coder-chat
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect "has been idle" within 60s
expect "It goes down at" within 30s
expect "It goes down at" within 60s
expect "idle for" within 60s
expect "nobody answered" within 30s
expect "is down and the GPU is free" within 60s
expect "Receipt"
expect "an estimate"
expect "the node billed" within 60s

@lead /gpu report
expect "The GPU in the last 8 weeks" within 60s
expect "in 1 session,"
