# The bot is removed from the channel while a model is up: the idle limit stops the model, and `/gpu down` works.
given speed 300
given idle.remind_after 4s
given idle.down_after 10s
given idle.announce_before 4s

@dev /gpu up coder-chat
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
@admin writes "help"
slack removes the bot
expect replicas coder-chat 0 within 60s
expect "Slack accepts no messages from Stoker in #gpu-ops" within 30s
slack invites the bot
expect "is down and the GPU is free" within 40s
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
slack removes the bot
@dev /gpu down
expect replicas coder-chat 0 within 30s
