# The gateway is restarting or down when a boot finishes: the model answers, so Stoker keeps the ten-minute boot.
given speed 300
given litellm.wait 8s

break litellm-down
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "waiting for LiteLLM" within 60s
mend litellm-down
expect "all smoke tests passed" within 60s
@dev /gpu down
expect replicas coder-chat 0 within 60s
expect "is down" within 60s

break litellm-down
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "LiteLLM could not be reached" within 60s
expect "coder-chat is up and answers" within 5s
expect replicas coder-chat 1 within 1s
mend litellm-down
@dev /model smoke coder-chat
expect "all smoke tests passed" within 60s

# If LiteLLM does not delete a virtual key, nothing fails; Stoker deletes it later.
break litellm-keeps-keys
@dev /model smoke coder-chat
expect "LiteLLM did not delete the virtual key" within 60s
expect "coder-chat answers" within 60s
expect replicas coder-chat 1 within 1s
mend litellm-keeps-keys
