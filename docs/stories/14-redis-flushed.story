# Redis loses its data during a session: the cluster still records who holds the GPU, and the session continues.
given speed 300

@dev /gpu up coder-chat for 3h because evaluation run
@lead clicks "Approve"
expect "all smoke tests passed" within 60s

redis is flushed
@lead /gpu up coder-fim                      # nobody else gets the GPU
expect "coder-chat" within 30s
expect "Redis had lost the lease of coder-chat; it is rebuilt from the cluster: @dev holds it" within 90s
@lead /gpu status
expect "coder-chat is held by @dev"
expect "evaluation run"
expect not "without a lease" within 1s
@dev /gpu down
expect "is down and the GPU is free" within 60s
expect "Receipt"
