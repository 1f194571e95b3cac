# One GPU, two people: the second is told who holds it, since when and for what.
given speed 120

@dev /gpu up coder-chat because evaluation run
@lead clicks "Approve"
expect "all smoke tests passed" within 60s

@lead /gpu up coder-fim
expect "coder-chat"
expect "@dev"
expect "evaluation run"
expect not "Approve" within 1s

@dev /gpu down
expect "is down and the GPU is free" within 30s
kubectl scale coder-chat 1                   # somebody works around the bot
@lead /gpu up coder-fim
expect "nobody holds a lease"
kubectl scale coder-chat 0
