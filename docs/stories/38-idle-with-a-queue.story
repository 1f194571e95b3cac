# An idle model goes down earlier if somebody waits for the GPU; the next in the queue gets it.
given speed 300
given idle.remind_after 30m
given idle.down_after 1h
given idle.queue_remind_after 3s
given idle.queue_down_after 12s

@dev /gpu up coder-chat because a demo this morning
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect not "has been idle" within 5s

@lead /gpu up coder-fim
expect "The GPU is taken" within 30s
@lead clicks "Queue"
expect "In the queue, next" within 30s
expect "It goes down at" within 60s
expect "nobody answered" within 60s
expect "It is your turn" within 60s
