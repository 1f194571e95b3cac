# A commit on main breaks the endpoint's files between the card and the click: nothing starts, and the card shows why.
given speed 120

@dev /gpu up coder-chat
expect "Bring up coder-chat" within 30s
main changes "serving/coder-chat/deployment.yaml" as "kind: x\n"
@lead clicks "Approve"
expect "changed after the approval" within 30s
expect "so the approval is void" within 1s
expect "serving/coder-chat/deployment.yaml:1: no Deployment here names a model any more" within 1s
expect replicas coder-chat 0 within 3s
@dev /gpu up coder-fim
expect "Bring up coder-fim" within 30s
main changes "serving/coder-fim/deployment.yaml" as "kind: [\n"
@lead clicks "Approve"
expect "changed after the approval" within 30s
expect "serving/coder-fim/deployment.yaml:2: this is not valid YAML" within 1s
expect replicas coder-fim 0 within 3s
