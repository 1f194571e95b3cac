# Staging ends if its swap is cancelled, which merges nothing, or if its endpoint is removed. Impossible requests are refused.
given speed 60
given idle.down_after 120s
given idle.remind_after 110s

@dev /model stage embeddings
expect "runs without a GPU" within 30s
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "loading" within 30s
@dev /model stage coder-chat
expect "is starting or stopping" within 30s
expect "all smoke tests passed" within 60s

@dev /model swap coder-chat Qwen/Qwen2.5-Coder-3B-Instruct-AWQ
expect "is staged next to the old weights" within 30s
break hf-429
github checks pass
@lead clicks "Approve & roll out"
expect "Hugging Face answers 429" within 30s
@lead clicks "Cancel"
expect "is closed and its branch deleted" within 30s
@dev /gpu down
expect "is down and the GPU is free" within 60s

@dev /model stage coder-fim
expect "Hugging Face answers 429" within 30s
@dev /model remove coder-fim
expect "Pull request #2" within 30s
github checks pass
@lead clicks "Approve deletion"
expect "because the endpoint has changed" within 60s
expect "is removed, with its volume" within 60s
