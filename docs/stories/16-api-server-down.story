# The API server is unavailable while a model boots: the boot continues, and Stoker catches up afterwards.
given speed 30
given gpu.boot_limit 300s

@dev /gpu up coder-chat
@lead clicks "Approve"
expect "✔️ waiting for a node" within 60s
break api-away
wait 3s
@lead /gpu up coder-fim                      # nothing starts without the cluster
expect "Kubernetes" within 60s
mend api-away
expect "all smoke tests passed" within 120s
@dev /gpu status
expect "coder-chat"
@dev /gpu down
expect "is down and the GPU is free" within 60s
