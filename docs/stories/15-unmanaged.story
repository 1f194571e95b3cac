# Somebody starts the GPU with kubectl: Stoker reports it once; an approver adopts it, or it is brought down.
given speed 300

kubectl scale coder-fim 1
expect "coder-fim uses the GPU, and nobody holds a lease for it" within 30s
@lead /gpu status
expect "without a lease (started with kubectl?), which costs $0.85/h" within 30s
@dev /gpu up coder-chat                      # nobody else gets the GPU
expect "nobody holds a lease" within 30s
@dev clicks "Adopt"
expect "Bring up coder-fim" within 30s
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect "had used the GPU without a lease since" within 30s

@lead /gpu status
expect "coder-fim is held by @dev"
@dev /gpu down
expect "is down and the GPU is free" within 60s

kubectl scale coder-fim 1
expect "coder-fim uses the GPU, and nobody holds a lease for it" within 30s
@dev clicks "Bring down"
expect "coder-fim is down and the GPU is free" within 60s
@dev /gpu status
expect "The GPU is free"

@dev /gpu up coder-chat                      # the reverse: somebody ends a session with kubectl
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
kubectl scale coder-chat 0
expect "it was down already" within 30s
expect "Receipt" within 30s
@dev /gpu status
expect "The GPU is free"
