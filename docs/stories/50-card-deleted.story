# Somebody deletes the card while the model loads: the boot continues, the card comes back once, and `/gpu down` works.
given speed 60

@dev /gpu up coder-chat
@lead clicks "Approve"
expect "loading" within 60s
slack deletes the card
expect "Bring up coder-chat" within 30s
expect "all smoke tests passed" within 90s
expect replicas coder-chat 1
slack deletes the card
@dev /gpu down
expect "is down and the GPU is free" within 60s
expect replicas coder-chat 0 within 5s
