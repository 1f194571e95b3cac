# Smoke tests fail: the model goes down again, as it would bill for nothing; with `keep` it stays up for somebody to look.
given speed 120

break smoke-fails
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "failed: direct: chat" within 60s
expect "is back at zero and the GPU is free" within 60s
expect "Receipt"

@dev /gpu up coder-chat keep because look into it
@lead clicks "Approve"
expect "is left up, as keep was said" within 60s
@dev /gpu status
expect "look into it"
@dev /gpu down
expect "is down and the GPU is free" within 60s
