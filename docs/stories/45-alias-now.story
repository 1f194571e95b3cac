# A trial of an alias before its pull request is merged: registered at run time, on an engine that already serves the model.
given speed 120

@dev /model add assistant Qwen/Qwen2.5-Coder-7B-Instruct-AWQ now
expect "Only approvers and admins can register an alias" within 30s
expect not "Pull request #1" within 1s                       # and nothing was opened

@lead /model add assistant Qwen/Qwen2.5-Coder-3B-Instruct-AWQ now
expect "would not work" within 30s
@lead /model swap coder-chat Qwen/Qwen2.5-Coder-3B-Instruct-AWQ now
expect "already has an alias"

@lead /model add assistant Qwen/Qwen2.5-Coder-7B-Instruct-AWQ now
expect "Pull request #1" within 30s
expect "already answers" within 30s
@lead clicks "Cancel"
expect "cancelled" within 30s
