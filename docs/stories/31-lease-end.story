# A lease ends: Stoker warns the holder and then brings the model down, even if it is in use.
given speed 300
given lease.warn_before 12s
given idle.remind_after 10m
given idle.down_after 1h

@dev /gpu up coder-chat for 20s
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect "the lease of coder-chat ends in" within 60s
traffic coder-chat 4/s for 9s
expect "the lease has ended" within 60s
expect "is down and the GPU is free" within 60s
expect "requests"
