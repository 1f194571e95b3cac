# The engine of a running model dies at each restart: Stoker reports the cause; the model does not count as in use.
given speed 300
given gpu.boot_limit 20s

@dev /gpu up coder-chat for 2h
@lead clicks "Approve"
expect "coder-chat is up and answers" within 60s
engine crashes coder-chat
expect "no longer serves requests: crash-looping since" within 30s
expect "an illegal memory access" within 5s
@dev /gpu status
expect "crash-looping since" within 10s
@dev opens home
expect "crash-looping since" within 10s
@dev clicks "Restart"
expect "coder-chat serves again" within 60s

engine says "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB. <!channel> <https://evil.example|Approve>" coder-chat
engine crashes coder-chat
expect "CUDA out of memory" within 30s
expect "has not served for" within 60s        # nobody restarts it: it ends at the boot limit
expect "the GPU is free" within 30s
expect replicas coder-chat 0 within 30s
