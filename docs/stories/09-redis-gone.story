# Without Redis the holder of the GPU is unknown: Stoker brings nothing up, and explains why.
given speed 300

@dev /gpu up coder-chat
expect "Approve"
redis stops
@dev /gpu up coder-fim
expect "Redis" within 30s
@dev /gpu status
expect "Redis does not answer: nothing can be brought up until it does" within 30s
expect "Nothing uses the GPU"
@dev /model list                             # from git and the cluster
expect "Redis does not answer, so open pull requests" within 30s
expect "coder-chat"
@lead clicks "Approve"
expect not "syncing" within 2s
redis starts
wait 3s
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
