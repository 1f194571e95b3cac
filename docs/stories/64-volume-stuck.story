# The card shows a volume that another pod still holds, with the name of that pod; when it is released, the boot continues.
given speed 60

break attach-stuck
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "pod weights-shell on node gke-ai-dev-default-pool-1 still holds the volume claim" within 30s
expect not "failed" within 2s
mend attach-stuck
expect "coder-chat is up and answers" within 60s
