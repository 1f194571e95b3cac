# Somebody scales a session to two replicas: Stoker reports it, and a restart returns to one.
given speed 120

@dev /gpu up coder-chat for 2h
@lead clicks "Approve"
expect "coder-chat is up and answers" within 60s
kubectl scale coder-chat 2
expect "It was scaled to 2 replicas from outside" within 30s
@dev clicks "Restart"
expect "coder-chat serves again" within 60s
expect replicas coder-chat 1 within 10s
