# The bot is killed after a reminder, and again while the node drains: it repeats no message, and still corrects the receipt.
given speed 120
given idle.remind_after 4s
given idle.remind_every 1h
given idle.down_after 18s
given idle.announce_before 4s

@dev /gpu up coder-chat
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect "has been idle" within 60s
bot is killed
expect "It goes down at" within 90s
expect "is down and the GPU is free" within 90s
expect "an estimate"
bot is killed
expect "the node billed" within 90s
