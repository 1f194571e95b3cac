# Staging puts weights on the volume without the GPU. While Hugging Face answers 429, nothing is billed.
given speed 40

break hf-429
@dev /model stage coder-chat
expect "Hugging Face answers 429" within 30s
expect "nothing is billed" within 10s
@lead /model stage coder-chat
expect "are already being staged" within 30s
mend hf-429
expect "are on the volume of coder-chat" within 60s

@dev /gpu up coder-chat because the weights are there
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
@dev /gpu down
expect "that saved about" within 60s
