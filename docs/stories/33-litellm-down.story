# The gateway does not answer: the model works, but no tenant could reach it. It is not left on to bill for nobody.
given speed 120

break litellm-down
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "failed: gateway: coder-chat" within 60s
expect "4 of 5 passed"
expect "is back at zero and the GPU is free" within 60s
mend litellm-down
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
