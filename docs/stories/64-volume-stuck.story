# Another pod still holds the volume: the card names that pod, and the boot continues when the volume is released.
given speed 60

break attach-stuck
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "pod weights-shell on node gke-ai-dev-default-pool-1 still holds the volume claim" within 30s
expect not "failed" within 2s
mend attach-stuck
expect "coder-chat is up and answers" within 60s
