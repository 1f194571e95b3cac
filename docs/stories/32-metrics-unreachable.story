# If the metrics cannot be read, the model counts as in use and the holder is notified, but the lease still ends.
given speed 300
given idle.remind_after 4s
given idle.down_after 7s
given lease.warn_before 5s

break metrics-down
@dev /gpu up coder-chat for 15s
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect "have been unavailable for" within 60s
expect "counts it as in use"
expect not "nobody answered" within 3s
expect "the lease has ended" within 90s
expect "is down and the GPU is free" within 60s
