# A swap whose volume is too small for both models: the volume grows after the approval, so the cut-over only loads.
# If the swap is cancelled, the volume keeps its new size, and the card shows what to do.
given speed 120
given idle.down_after 120s
given idle.remind_after 110s

@dev /gpu up coder-chat because the demo
@lead clicks "Approve"
expect "all smoke tests passed" within 60s

@dev /model swap coder-chat Qwen/Qwen2.5-Coder-3B-Instruct-AWQ storage=40Gi
expect "from 20Gi to 40Gi, before the merge and permanently" within 30s
expect "load only, no download"
break hf-429
github checks pass
@lead clicks "Approve & roll out"
expect "making the volume grow" within 30s
expect "Hugging Face answers 429" within 30s
@lead clicks "Cancel"
expect "has already grown from 20Gi to 40Gi and cannot shrink" within 30s
mend hf-429

@dev /model swap coder-chat Qwen/Qwen2.5-Coder-3B-Instruct-AWQ storage=60Gi
expect "from 40Gi to 60Gi, before the merge and permanently" within 30s
github checks pass
@lead clicks "Approve & roll out"
expect "coder-chat now serves Qwen/Qwen2.5-Coder-3B-Instruct-AWQ" within 60s
expect "Downtime:" within 5s
