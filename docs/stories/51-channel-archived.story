# The channel is archived while the model loads: the people concerned get direct messages, and the lease still ends.
given speed 120
given lease.warn_before 2s
given idle.remind_after 10m
given idle.down_after 1h

@dev /gpu up coder-chat for 15s
@lead clicks "Approve"
expect "loading" within 60s
slack archives the channel
@dev writes "help"
expect "Slack accepts no messages from Stoker in #gpu-ops" within 30s
expect replicas coder-chat 1 within 30s
expect "all smoke tests passed" within 60s
expect replicas coder-chat 0 within 60s
expect "the lease has ended" within 30s
slack unarchives the channel
expect "is down and the GPU is free" within 40s
expect "is shown in #gpu-ops again" within 30s
