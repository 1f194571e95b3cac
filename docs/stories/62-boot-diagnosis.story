# The message about a failed boot names the cause and a value that works, although sixty lines of the server's traceback follow it.
given speed 300

break kv-cache-too-small
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "--max-model-len=49216 would fit" within 60s
expect "the GPU is free" within 60s
expect replicas coder-chat 0 within 30s
mend kv-cache-too-small

break cuda-oom
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "CUDA out of memory: the model does not fit into the GPU (2.53 GiB more were needed" within 60s
expect "the GPU is free" within 60s
mend cuda-oom

break driver-too-old
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "driver is too old for this image (the image needs CUDA 12.9)" within 60s
expect "newer node image" within 5s
expect "the GPU is free" within 60s
mend driver-too-old
