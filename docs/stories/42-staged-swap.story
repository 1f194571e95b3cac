# A swap of a running endpoint: Stoker stages the new weights while the old model serves, so the cut-over only loads them.
given speed 120
given idle.down_after 120s
given idle.remind_after 110s

@dev /gpu up coder-chat because the demo
@lead clicks "Approve"
expect "all smoke tests passed" within 60s

@dev /model swap coder-chat Qwen/Qwen2.5-Coder-3B-Instruct-AWQ
expect "is staged next to the old weights" within 30s
expect "load only, no download"
break hf-429
github checks pass
@lead clicks "Approve & roll out"
expect "Hugging Face answers 429" within 30s
traffic coder-chat 2/s for 2s
mend hf-429
expect "coder-chat now serves Qwen/Qwen2.5-Coder-3B-Instruct-AWQ" within 60s
expect "Downtime:" within 5s
