# The bot is killed three times during one bring-up and loses nothing: one message, one result, one lease.
given speed 40

@dev /gpu up coder-chat because the bot is about to have a bad day
expect "Approve"
@lead clicks "Approve"
expect "starting" within 30s                 # between scale and ready
bot is killed
expect "🔸 pulling the image" within 60s       # during the boot
bot is killed
expect "Smoke tests" within 60s
bot is killed                                # during the smoke tests
expect "all smoke tests passed" within 60s
expect not "failed" within 2s

@dev /gpu status
expect "coder-chat"
expect "bad day"
@dev /gpu down
expect "is down and the GPU is free" within 30s
