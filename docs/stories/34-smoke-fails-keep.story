# Smoke tests fail: Stoker brings the model down, because it would cost money for nothing; with `keep` it stays up.
given speed 300

break smoke-fails
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "failed: direct: chat" within 60s
expect "What was seen" within 30s              # the engine's last log lines, read before the pod ends
expect "Application startup complete"
expect "is down again and the GPU is free" within 60s
expect "Receipt"

@dev /gpu up coder-chat keep because look into it
@lead clicks "Approve"
expect "stays up because of keep" within 60s
@dev /gpu status
expect "look into it"
@dev /gpu down
expect "is down and the GPU is free" within 60s
