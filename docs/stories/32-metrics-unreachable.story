# Nobody can tell whether the model is used: it counts as in use, which is said, but not beyond the end of its lease.
given speed 120
given idle.remind_after 4s
given idle.down_after 10s
given lease.warn_before 5s

break metrics-down
@dev /gpu up coder-chat for 30s
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect "cannot be read" within 60s
expect "count it as in use"
expect not "nobody answered" within 3s
expect "the lease has ended" within 90s
expect "is down and the GPU is free" within 60s
