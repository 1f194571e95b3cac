# A 400 MB file on Hugging Face, and a model that never stops generating: Stoker reports each in one sentence and continues.
given speed 300

break hub-huge
@dev /model add huge Qwen/Qwen2.5-Coder-3B-Instruct-AWQ
expect "is larger than" within 30s
mend hub-huge
@dev /model fit Qwen/Qwen2.5-Coder-3B-Instruct-AWQ
expect "Context" within 15s

break completion-endless
@dev /gpu up coder-chat for 1h because demo
expect "Approve" within 15s
@lead clicks "Approve"
expect "does not stop at the 48 requested tokens" within 90s
expect replicas coder-chat 0 within 60s
